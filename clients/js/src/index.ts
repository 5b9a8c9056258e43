export { GrpcSaver } from "./saver.js";
export { PortableSerializer } from "./portable.js";
export { DEFAULT_TARGET, type GrpcSaverOptions, type TlsOptions } from "./options.js";
export {
  AccessDeniedError,
  BaseMissingError,
  CheckpointdError,
  CorruptValueError,
  DeadlineExceededError,
  InvalidArgumentError,
  LeaseHeldError,
  LeaseLostError,
  MessageTooLargeError,
  PredecessorMissingError,
  SerializerMismatchError,
  ServerError,
  ServerUnavailableError,
  UnportableValueError,
  UnsupportedError,
  VersionConflictError,
  WriteConflictError,
  type Conflict,
} from "./errors.js";
