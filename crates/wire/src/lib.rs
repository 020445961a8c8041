//! Protobuf and JSON renderings of the model.
