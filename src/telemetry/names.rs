//! Every name that telemetry uses, as OpenTelemetry's semantic conventions have it where they have one.

/// The span of one gRPC call.
pub const CALL_SPAN: &str = "call";
/// The RPC system: always `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// The method called: a known one, or [`OTHER`].
pub const RPC_METHOD: &str = "rpc.method";
/// What stands for any value outside a closed set.
pub const OTHER: &str = "_OTHER";
