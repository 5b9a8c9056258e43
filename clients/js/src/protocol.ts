/** The protocol itself: messages, enums and client stubs of `checkpointd.v1`, for programs that call the RPCs. */
export * from "./gen/checkpointd/v1/checkpoint_service.js";
export * from "./gen/checkpointd/v1/errors.js";
export * from "./gen/checkpointd/v1/info_service.js";
export * from "./gen/checkpointd/v1/lease_service.js";
export * from "./gen/checkpointd/v1/thread_service.js";
export * from "./gen/checkpointd/v1/value_service.js";
export * from "./gen/checkpointd/v1/values.js";
export { ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
export { Status } from "./gen/google/rpc/status.js";
// Each of these is in every generated module.
export { protobufFileName, protobufPackage, type DeepPartial, type MessageFns } from "./gen/checkpointd/v1/values.js";
