//! Rows by `COPY`, in its binary format: what costs Postgres least where nothing can be in their way.
//! <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>

use sqlx::Postgres;
use sqlx::encode::{Encode, IsNull};
use sqlx::postgres::{PgArgumentBuffer, PgConnection};

use super::error::StoreError;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// No flags, no extension of the header.
const HEADER_END: [u8; 8] = [0; 8];
const END: [u8; 2] = (-1i16).to_be_bytes();
const NULL: [u8; 4] = (-1i32).to_be_bytes();

/// Rows of a table, encoded one after the other.
pub struct CopiedRows {
    buffer: PgArgumentBuffer,
    columns: i16,
}

impl CopiedRows {
    pub fn new(columns: i16) -> CopiedRows {
        let mut buffer = PgArgumentBuffer::default();
        buffer.extend_from_slice(SIGNATURE);
        buffer.extend_from_slice(&HEADER_END);
        CopiedRows { buffer, columns }
    }

    /// Begins a row; as many fields as there are columns have to follow.
    pub fn row(&mut self) {
        self.buffer.extend_from_slice(&self.columns.to_be_bytes());
    }

    /// # Errors
    /// When the value cannot be encoded.
    pub fn field<'v>(&mut self, value: impl Encode<'v, Postgres>) -> Result<(), StoreError> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&NULL);
        if let IsNull::No = value.encode(&mut self.buffer).map_err(sqlx::Error::Encode)? {
            let length = (self.buffer.len() - start - NULL.len()) as i32;
            self.buffer[start..start + NULL.len()].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    /// Sends the rows: `statement` is a `COPY … FROM STDIN (FORMAT binary)` with the columns in their order.
    ///
    /// # Errors
    /// What Postgres says.
    pub async fn send(mut self, connection: &mut PgConnection, statement: &str) -> Result<u64, StoreError> {
        self.buffer.extend_from_slice(&END);
        let mut copy = connection.copy_in_raw(statement).await?;
        copy.send(&self.buffer[..]).await?;
        Ok(copy.finish().await?)
    }
}
