//! The description of the API, OpenAPI 3.1: operations from the handlers, schemas from the types that they answer with.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use dagwright_model::{event::EventData, request::Request as PipelineRequest, spec::Spec};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{events, feedback, pipelines, plans, requests, runs};
use crate::api::{self, Decided, Details, Page, Pipeline, Receipt, Run, Said, SealedPlan, Stopping, Story, WholePlan};

/// The operations, without what all of them share.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dagwright",
        description = "Takes pipeline requests on, tells how agents negotiated them, what ran, and what happens.",
        version = "1",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/api/v1")),
    tags(
        (name = "requests", description = "What was asked for"),
        (name = "runs", description = "What runs and ran"),
        (name = "pipelines", description = "What is kept"),
        (name = "plans", description = "What waits for a person"),
        (name = "events", description = "What happens"),
        (name = "feedback", description = "What Airflow tells"),
    ),
    paths(
        requests::list, requests::submit, requests::show, requests::transcript, requests::explain, requests::cancel,
        pipelines::list, pipelines::show, pipelines::plans, pipelines::plan,
        runs::list, runs::show, runs::cancel,
        plans::approve, plans::decline,
        events::stream,
        feedback::take,
    ),
)]
struct Operations;

/// Answers every operation may give, beside its own.
const SHARED: [(&str, &str); 5] = [
    ("401", "DW0807: a token is missing or not valid"),
    ("403", "DW0808: the token lacks the scope; DW0806: the settings do not allow it"),
    ("429", "DW0812: more requests than one caller may send; Retry-After says when to go on"),
    ("500", "DW0799, DW0703: something is wrong here, and the log says what"),
    ("503", "DW0812: the service has more to do than it takes on"),
];

/// What Airflow's listener posts, which is described for whoever else posts it.
const FEEDBACK: &str = include_str!("../../../../docs/feedback.schema.json");

/// Shows the description.
pub(super) async fn show() -> HttpResponse {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    HttpResponse::Ok().content_type("application/json").body(TEXT.as_str())
}

/// Returns the description.
pub(super) fn document() -> Value {
    let mut document = serde_json::to_value(Operations::openapi()).unwrap_or_default();
    document["components"] = json!({
        "schemas": schemas(),
        "responses": SHARED.iter().map(|(status, what)| (format!("E{status}"), problem(what))).collect::<Map<_, _>>(),
        "securitySchemes": { "token": {
            "type": "http", "scheme": "bearer",
            "description": "A token of http.tokens; none is needed where the service has none and answers localhost only.",
        } },
    });
    document["security"] = json!([{ "token": [] }, {}]);
    let operations = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in operations.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        // A handler's name is unique among those of its kind only.
        let id = format!("{}_{}", text(&operation["tags"][0]), text(&operation["operationId"]));
        operation["operationId"] = id.into();
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        for (status, _) in SHARED {
            let shared = json!({ "$ref": format!("#/components/responses/E{status}") });
            responses.entry(status).or_insert(shared);
        }
    }
    document
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn problem(description: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Details" });
    json!({ "description": description, "content": { super::fault::MEDIA_TYPE: { "schema": schema } } })
}

fn schemas() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let mut pages = Map::new();
    let mut list = |name: &str, schema: Value| pages.insert(name.into(), schema);
    list("RequestPage", whole::<Page<api::Request>>(&mut generator));
    list("RunPage", whole::<Page<Run>>(&mut generator));
    list("PipelinePage", whole::<Page<Pipeline>>(&mut generator));
    list("PlanPage", whole::<Page<SealedPlan>>(&mut generator));
    list("Transcript", whole::<Vec<Said>>(&mut generator));
    for define in [
        named::<Details>,
        named::<Receipt>,
        named::<Stopping>,
        named::<Decided>,
        named::<api::Request>,
        named::<Run>,
        named::<WholePlan>,
        named::<Story>,
        named::<EventData>,
    ] {
        define(&mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.append(&mut pages);
    schemas.extend(taken_in("PipelineRequest", PipelineRequest::json_schema()));
    schemas.extend(taken_in("Spec", Spec::json_schema()));
    schemas.extend(taken_in("FeedbackEvent", serde_json::from_str(FEEDBACK).unwrap_or_default()));
    schemas
}

/// Makes a schema that stands for itself one of many: its definitions stand beside it, as `Spec.Sink`.
fn taken_in(name: &str, mut schema: Value) -> Map<String, Value> {
    let definitions = schema.as_object_mut().and_then(|members| {
        members.remove("$schema");
        members.remove("$id");
        members.remove("$defs")
    });
    let Some(Value::Object(definitions)) = definitions else { return Map::from_iter([(name.to_owned(), schema)]) };
    let mut all: Map<_, _> =
        definitions.into_iter().map(|(own, definition)| (format!("{name}.{own}"), definition)).collect();
    all.insert(name.to_owned(), schema);
    for schema in all.values_mut() {
        redirect(schema, &format!("#/components/schemas/{name}."));
    }
    all
}

/// Lets references to definitions lead elsewhere.
fn redirect(value: &mut Value, to: &str) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(own) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("{to}{own}");
            }
            members.values_mut().for_each(|member| redirect(member, to));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, to)),
        _ => {}
    }
}

fn named<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Returns the schema of what has no name of its own.
fn whole<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    T::json_schema(generator).to_value()
}
