//! Where a record is, as headers and people write it: `topic/partition/offset`.

use std::{fmt, str::FromStr};

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

/// A text names no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place of the form topic/partition/offset")]
pub struct NoPlace;

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let mut parts = text.rsplitn(3, '/');
        let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok()).filter(|number| *number >= 0);
        let partition = number(partition).and_then(|partition| i32::try_from(partition).ok());
        match (topic, partition, number(offset)) {
            // No topic's name has a slash.
            (Some(topic), Some(partition), Some(offset)) if !topic.is_empty() && !topic.contains('/') => {
                Ok(Self { topic: topic.into(), partition, offset })
            }
            _ => Err(NoPlace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NoPlace, Place};

    #[test]
    fn places_read_back() {
        let place = Place { topic: "team-a.requests".into(), partition: 3, offset: i64::MAX };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "t", "t/1", "/1/2", "t/-1/2", "t/1/-2", "t/1/x", "t/4294967296/1", "a/b/1/2"] {
            assert_eq!(text.parse::<Place>(), Err(NoPlace), "{text}");
        }
    }
}
