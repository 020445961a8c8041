//! Tables that have columns and no rows: enough to plan over.

use std::{borrow::Cow, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use dagwright_model::schema::Column;
use datafusion::{
    catalog::{Session, TableProvider},
    common::not_impl_err,
    error::Result,
    logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};

use crate::types::arrow_schema;

/// A table without rows. It takes every filter, so that optimised plans show what could be applied at a source.
#[derive(Debug)]
pub(crate) struct TypingTable {
    schema: SchemaRef,
    view_of: Option<LogicalPlan>,
}

impl TypingTable {
    /// Makes a table that plans stop at.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { schema: arrow_schema(columns), view_of: None }
    }

    /// Makes a table that plans see through.
    pub(crate) fn view(columns: &[Column], plan: LogicalPlan) -> Self {
        Self { schema: arrow_schema(columns), view_of: Some(plan) }
    }
}

#[async_trait]
impl TableProvider for TypingTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        self.view_of.as_ref().map(Cow::Borrowed)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        not_impl_err!("a table without rows is only planned over")
    }
}
