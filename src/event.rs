//! What a message is, before and after it has been decoded.

use std::borrow::Cow;
use std::fmt;

use crate::json_paths::Slots;

/// Where a message stands in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// As errors write it, and people read it back.
impl std::str::FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Place, ()> {
        let parts = || {
            let (topic, rest) = text.rsplit_once('/')?;
            let (partition, offset) = rest.split_once('@')?;
            Some(Place { topic: topic.into(), partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        };
        parts().ok_or(())
    }
}

/// A message as Kafka gave it.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Microseconds since the Unix epoch.
    pub time: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

pub type Headers<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

impl<'a> Record<'a> {
    pub fn place(&self) -> Place {
        Place { topic: self.topic.to_string(), partition: self.partition, offset: self.offset }
    }

    /// The last header of that name, as Kafka's own clients pick it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().rev().find(|(n, _)| *n == name).and_then(|(_, value)| *value)
    }
}

/// A decoded message. `data` and `key` hold the raw JSON of the paths that the source's plan names.
#[derive(Debug, Clone)]
pub struct Event<'a> {
    pub record: &'a Record<'a>,
    pub type_: Cow<'a, str>,
    pub id: Option<Cow<'a, str>>,
    pub subject: Option<Cow<'a, str>>,
    /// The event's own time, else the record's; microseconds since the Unix epoch.
    pub time: Option<i64>,
    /// CloudEvents' `source`: with the id, the event's identity.
    pub source: Option<Cow<'a, str>>,
    pub data: Slots<'a>,
    /// The text that the data were read from, where it was kept.
    pub body: Option<&'a str>,
    pub key: Slots<'a>,
    /// Of the message that a `split` took the event from.
    pub message: Slots<'a>,
    /// Which of its message's events this is, from 0.
    pub index: u32,
    /// The greatest event time that its partition has had so far, this event's included; microseconds.
    pub clock: Option<i64>,
    /// Named captures of the topic's regular expression.
    pub captures: Vec<(String, String)>,
}
