//! Streams that fail when the other side takes too long.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long the other side may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request's headers, from their first byte, or from the connection's beginning.
    pub(super) head: Duration,
    /// For a request to begin after the one before it.
    pub(super) idle: Duration,
    /// For taking some bytes of an answer.
    pub(super) write: Duration,
}

/// Whether a request is being answered or waited for. Shared by the connection and the service on it.
///
/// An odd number is a request that the service has and has not answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<AtomicUsize>);

impl Turn {
    /// A request's headers have come, or its answer was begun.
    pub(super) fn pass(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// A stream with deadlines. One that passes is an error of the kind `TimedOut`.
///
/// hyper's own deadline for headers begins when an answer stands in its buffer, and would cut those who are still
/// reading it. This one moves on with every byte that is read.
pub(super) struct Timed<S> {
    stream: S,
    patience: Patience,
    turn: Turn,
    /// The turn that `reading` is of.
    seen: usize,
    /// What may pass until the deadline of `reading`, and is begun anew when the answer before moves on.
    span: Duration,
    /// Nothing of the request has come yet.
    fresh: bool,
    reading: Deadline,
    writing: Deadline,
}

/// A point in time that is waited for, or not.
#[derive(Default)]
struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Deadline {
    fn arm(&mut self, span: Duration) {
        let at = Instant::now() + span;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(sleep_until(at))),
        }
        self.armed = true;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) if self.armed => sleep.as_mut().poll(context),
            _ => Poll::Pending,
        }
    }
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, patience: Patience, turn: Turn) -> Timed<S> {
        let (reading, writing) = (Deadline::default(), Deadline::default());
        // The first request is not waited for longer than for its headers.
        let (seen, span) = (turn.now(), patience.head);
        let mut timed = Timed { stream, patience, turn, seen, span, fresh: false, reading, writing };
        timed.reading.arm(span);
        timed
    }

    /// Takes note of the turn. Says whether a request is waited for.
    fn is_waiting(&mut self) -> bool {
        let turn = self.turn.now();
        if turn != self.seen {
            self.seen = turn;
            self.fresh = true;
            self.span = self.patience.idle;
            self.reading.armed = false;
        }
        let waiting = turn.is_multiple_of(2);
        if waiting && !self.reading.armed {
            self.reading.arm(self.span);
        }
        waiting
    }

    /// Some bytes were taken, or nothing can be.
    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(taken)) if taken > 0 => {
                self.writing.armed = false;
                if self.is_waiting() {
                    self.reading.arm(self.span);
                    // hyper does not read again before something comes; the deadline has to wake it.
                    let _ = self.reading.poll(context);
                }
            }
            Poll::Pending => {
                if !self.writing.armed {
                    self.writing.arm(self.patience.write);
                }
                ready!(self.writing.poll(context));
                return Poll::Ready(Err(late("the answer is not read")));
            }
            Poll::Ready(_) => {}
        }
        written
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if this.is_waiting() {
            if read.is_pending() {
                ready!(this.reading.poll(context));
                return Poll::Ready(Err(late("no request has come")));
            }
            if this.fresh && buffer.filled().len() > before {
                this.fresh = false;
                this.span = this.patience.head;
                this.reading.arm(this.span);
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
