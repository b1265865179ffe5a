//! What a topic is besides its name: its identity, its partitions, whether it is compacted.
//!
//! librdkafka's DescribeTopics is not in the Rust wrapper, so the calls to it are made here. This is the only unsafe code.

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka_sys as sys;
use tokio::runtime::Handle;

use super::{SourceError, client_config};
use crate::config::Kafka;

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// The broker's identity of the topic; `None` when the broker does not tell.
    pub id: Option<String>,
    /// Older messages of a key are deleted.
    pub compacted: bool,
}

/// Whom to ask about topics.
pub enum Admin {
    Cluster(AdminClient<DefaultClientContext>),
    /// The demo's cluster does not answer such questions; its topics are new and whole.
    InProcess,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

impl Admin {
    /// A client for questions to the cluster of the settings.
    ///
    /// # Errors
    /// When the settings make no client.
    pub fn new(settings: &Kafka) -> Result<Admin, SourceError> {
        Ok(Admin::Cluster(client_config(settings)?.create()?))
    }

    /// Asks about a topic. Blocks for up to 20 seconds. What the user may not see is taken as not so.
    ///
    /// # Errors
    /// When the cluster does not answer in time.
    pub fn topic_facts(&self, runtime: &Handle, topic: &str) -> Result<TopicFacts, KafkaError> {
        let Admin::Cluster(client) = self else { return Ok(TopicFacts { id: None, compacted: false }) };
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
        let resources = runtime.block_on(client.describe_configs(&[ResourceSpecifier::Topic(topic)], &options))?;
        let compacted = resources.iter().flatten().any(|resource| {
            resource
                .get("cleanup.policy")
                .and_then(|entry| entry.value.as_deref())
                .is_some_and(|v| v.contains("compact"))
        });
        Ok(TopicFacts { id: describe(client, topic), compacted })
    }
}

fn describe(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Option<String> {
    const TIMEOUT_MS: i32 = 10_000;
    let name = CString::new(topic).ok()?;
    let client = admin.inner().native_ptr();
    // SAFETY: every pointer is made here and destroyed here; what the event owns is read before the event goes.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let mut names = [name.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let options =
            sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        let event = sys::rd_kafka_queue_poll(queue, TIMEOUT_MS);
        let id = if event.is_null() { None } else { topic_id(event) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        id
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn topic_id(event: *mut sys::rd_kafka_event_t) -> Option<String> {
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if descriptions.is_null() || count == 0 {
            return None;
        }
        let description = *descriptions;
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() && sys::rd_kafka_error_code(error) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return None;
        }
        let text = sys::rd_kafka_Uuid_base64str(id);
        let text = (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())?;
        // All zeros: a broker that does not know identities.
        (!text.chars().all(|c| c == 'A')).then_some(text)
    }
}
