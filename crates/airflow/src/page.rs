//! Lists in pages.

/// The most that Airflow puts on one page, unless its own settings say otherwise.
pub const PAGE_LIMIT_MAX: u32 = 100;

/// Which part of a list.
///
/// Lists are asked for in an order that does not change. What comes in meanwhile may move others to the next page, so that one
/// is seen twice; none is missed unless something is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How many at most, up to [`PAGE_LIMIT_MAX`].
    pub limit: u32,
    /// How many are left out before.
    pub offset: u32,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// How many there are in all, as Airflow counts.
    pub total: u64,
}

// === impl Span ===

impl Span {
    /// The first page.
    #[must_use]
    pub fn first() -> Self {
        Self { limit: PAGE_LIMIT_MAX, offset: 0 }
    }

    /// Returns where to go on after a page; `None` after the last one.
    #[must_use]
    pub fn after<T>(self, page: &Page<T>) -> Option<Self> {
        let offset = self.offset.checked_add(u32::try_from(page.items.len()).ok()?)?;
        (!page.items.is_empty() && u64::from(offset) < page.total).then_some(Self { offset, ..self })
    }

    pub(crate) fn query(self) -> [(&'static str, String); 2] {
        [("limit", self.limit.clamp(1, PAGE_LIMIT_MAX).to_string()), ("offset", self.offset.to_string())]
    }
}

#[cfg(test)]
mod tests {
    use super::{Page, Span};

    #[test]
    fn spans_go_on_until_the_end() {
        let page = |items: usize, total| Page { items: vec![(); items], total };
        let first = Span { limit: 2, offset: 0 };
        assert_eq!(first.after(&page(2, 3)), Some(Span { limit: 2, offset: 2 }));
        assert_eq!(Span { limit: 2, offset: 2 }.after(&page(1, 3)), None);
        assert_eq!(first.after(&page(0, 3)), None, "an empty page ends a list, whatever its total says");
        assert_eq!(Span { limit: 1000, offset: 0 }.query()[0].1, "100");
        assert_eq!(Span { limit: 0, offset: 0 }.query()[0].1, "1");
    }
}
