/**
 * What can go wrong, as a tree:
 *
 * ```text
 * CheckpointdError
 * ├── InvalidArgumentError          an argument can't be used as it is
 * ├── WriteConflictError            another run is in the way of this one
 * │   ├── VersionConflictError      it wrote to the thread first
 * │   │   └── PredecessorMissingError  what this write builds on was refused, or never arrived
 * │   ├── LeaseHeldError            it holds the lease on the thread
 * │   └── LeaseLostError            the lease that this run held has ended
 * ├── SerializerMismatchError       the thread was written by another language's serializer
 * ├── UnportableValueError          a value that the other language couldn't read
 * ├── CorruptValueError             a stored value, or an answer, isn't what can have been stored
 * ├── BaseMissingError              an upload isn't there any more; sent again by the saver
 * ├── MessageTooLargeError          a request or an answer doesn't fit into a message
 * ├── AccessDeniedError             no token, a wrong one, or one that may not do this
 * ├── UnsupportedError              the server is too old for this call
 * ├── ServerUnavailableError        no server answered within the retry budget
 * ├── DeadlineExceededError         the server didn't answer in time
 * └── ServerError                   anything else that the server reports
 * ```
 */
import { status, type ServiceError } from "@grpc/grpc-js";

import { ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

const DOMAIN = "checkpointd";

/** The root of all errors that the saver throws. */
export class CheckpointdError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** An argument can't be used as it is. Nothing was changed. */
export class InvalidArgumentError extends CheckpointdError {
  constructor(
    message: string,
    /** Which argument. */
    readonly field: string = "",
    /** The limit that was exceeded, where one was. */
    readonly limit?: number,
  ) {
    super(message);
  }
}

/** Another run is in the way of this one. Nothing was stored. */
export class WriteConflictError extends CheckpointdError {}

/** Where a conflict was found. */
export interface Conflict {
  /** The thread. */
  threadId: string;
  /** Its namespace; "" is the root graph. */
  checkpointNs: string;
  /** The version that this run last saw. 0n: there was nothing. */
  expectedVersion: bigint;
  /** The version now. 0n: the thread was deleted. */
  currentVersion: bigint;
  /** The checkpoint put last; undefined where there is none. */
  currentCheckpointId?: string;
}

/** Another run wrote to the thread after this one had read it. Nothing was stored: run the turn again. */
export class VersionConflictError extends WriteConflictError implements Conflict {
  readonly threadId: string;
  readonly checkpointNs: string;
  readonly expectedVersion: bigint;
  readonly currentVersion: bigint;
  readonly currentCheckpointId?: string;

  constructor(conflict: Conflict, happened?: string) {
    const where = `thread ${JSON.stringify(conflict.threadId)}` + (conflict.checkpointNs ? `, namespace ${JSON.stringify(conflict.checkpointNs)},` : "");
    super(
      `${where} ${happened ?? VersionConflictError.happened(conflict)} This run's write was not stored. Run the turn again to ` +
        'start from the thread\'s present state, or build the saver with concurrency: "lastWriteWins" to let runs overwrite each other.',
    );
    this.threadId = conflict.threadId;
    this.checkpointNs = conflict.checkpointNs;
    this.expectedVersion = conflict.expectedVersion;
    this.currentVersion = conflict.currentVersion;
    this.currentCheckpointId = conflict.currentCheckpointId;
  }

  private static happened(conflict: Conflict): string {
    return conflict.currentVersion === 0n
      ? `was deleted while this run was under way (it last saw version ${conflict.expectedVersion}).`
      : `was written to by another run: this run last saw version ${conflict.expectedVersion}, the thread is now at version ` +
          `${conflict.currentVersion} (checkpoint ${conflict.currentCheckpointId}).`;
  }
}

/** A write builds on one of the same run that was refused, or never arrived. Nothing of it was stored. */
export class PredecessorMissingError extends VersionConflictError {
  constructor(conflict: Conflict) {
    super(
      conflict,
      "lacks what this run's write builds on: the write before it was refused, or never arrived (the thread is at version " +
        `${conflict.currentVersion}, checkpoint ${conflict.currentCheckpointId}).`,
    );
  }
}

/** Somebody else holds the lease on the thread. Nothing was stored. */
export class LeaseHeldError extends WriteConflictError {
  constructor(
    readonly threadId: string,
    /** How long the lease lives without a renewal, in milliseconds; undefined where that isn't known. */
    readonly remainingMs?: number,
  ) {
    super(`thread ${JSON.stringify(threadId)} was not written to: another holds the lease on it.`);
  }
}

/** The lease under which this run writes has ended. Nothing was stored. */
export class LeaseLostError extends WriteConflictError {
  constructor(readonly threadId: string) {
    super(`the lease on thread ${JSON.stringify(threadId)} has ended under this run; what it wrote since was not stored.`);
  }
}

/** Type tags of Python's serializers, which this side doesn't read. */
export const PYTHON_TYPES = /^(msgpack|null|bytearray|pickle)(\+|$)/;

/** A thread was written by another serializer, which this saver's doesn't read. Nothing was returned, and nothing was stored. */
export class SerializerMismatchError extends CheckpointdError {
  constructor(
    readonly threadId: string,
    /** The type tag that was found; "" where the server has refused a write. */
    readonly type: string,
    /** The family of the serializer that wrote the thread: "langgraph-msgpack" for that of LangGraph for Python, or "other". */
    readonly family = PYTHON_TYPES.test(type) ? "langgraph-msgpack" : "other",
  ) {
    const found = type === "" ? "" : ` (its values have the type ${JSON.stringify(type)})`;
    super(
      `thread ${JSON.stringify(threadId)} was written by ` +
        (family === "langgraph-msgpack"
          ? `LangGraph for Python's own serializer, which LangGraph.js can't read${found}. For threads that Python and JavaScript ` +
            "share, give the Python saver serde=PortableSerializer() and this one serde: new PortableSerializer()."
          : `another serializer than this saver's${found}. Give the saver the serde that has written it` +
            (family === "langgraph-json" ? ": new PortableSerializer(), or none." : ".")),
    );
  }
}

/** A value can't be carried to the other language. Nothing was stored. */
export class UnportableValueError extends CheckpointdError {
  constructor(
    /** Where in the value, such as `messages[2].content`. */
    readonly path: string,
    what: string,
  ) {
    super(`${path || "the value"}: ${what}`);
  }
}

/** A stored value can't be read, or an answer isn't what a server can have stored. */
export class CorruptValueError extends CheckpointdError {}

/** An upload isn't there any more. The saver sends such a write again. */
export class BaseMissingError extends CheckpointdError {}

/** A request or an answer doesn't fit into a message. */
export class MessageTooLargeError extends CheckpointdError {}

/** The server wants a token, doesn't accept this one, or the token doesn't allow the call. */
export class AccessDeniedError extends CheckpointdError {}

/** The server is too old for this call. */
export class UnsupportedError extends CheckpointdError {}

/** No server answered within the retry budget. A write may or may not have been stored. */
export class ServerUnavailableError extends CheckpointdError {}

/** The server didn't answer in time. A write may or may not have been stored. */
export class DeadlineExceededError extends CheckpointdError {}

/** Anything else that the server reports. */
export class ServerError extends CheckpointdError {
  constructor(
    message: string,
    /** The gRPC status code's name, such as "INTERNAL". */
    readonly code: string,
  ) {
    super(message);
  }
}

/** The details of a failed call's status. */
export interface Details {
  /** The reason, as `ErrorReason` of the protocol has it without its prefix; "" if the failure wasn't checkpointd's. */
  reason: string;
  /** What belongs to the reason. */
  metadata: Record<string, string>;
  /** After how long the server wants the call to be sent again, in milliseconds. */
  retryAfterMs?: number;
}

/** Reads the details of a failed call; what can't be parsed counts as absent. */
export function detailsOf(error: ServiceError): Details {
  const found: Details = { reason: "", metadata: {} };
  for (const packed of error.metadata?.get("grpc-status-details-bin") ?? []) {
    try {
      for (const detail of Status.decode(packed as Buffer).details) {
        if (detail.typeUrl.endsWith("/google.rpc.ErrorInfo")) {
          const info = ErrorInfo.decode(detail.value);
          if (info.domain === DOMAIN) {
            found.reason = info.reason;
            found.metadata = info.metadata;
          }
        } else if (detail.typeUrl.endsWith("/google.rpc.RetryInfo")) {
          const delay = RetryInfo.decode(detail.value).retryDelay;
          if (delay !== undefined) found.retryAfterMs = Math.max(Number(delay.seconds) * 1000 + delay.nanos / 1e6, 0);
        }
      }
    } catch {
      // It may be any server.
    }
  }
  return found;
}

/** Translates a failed call into the saver's own words. */
export function fromServiceError(error: ServiceError, target: string, method: string): CheckpointdError {
  const { reason, metadata } = detailsOf(error);
  const said = error.details || status[error.code];
  const threadId = metadata.thread_id ?? "";
  switch (reason) {
    case "VERSION_CONFLICT":
    case "PREDECESSOR_MISSING": {
      const kind = reason === "VERSION_CONFLICT" ? VersionConflictError : PredecessorMissingError;
      return new kind({
        threadId,
        checkpointNs: metadata.checkpoint_ns ?? "",
        expectedVersion: integer(metadata.expected_version) ?? 0n,
        currentVersion: integer(metadata.current_version) ?? 0n,
        currentCheckpointId: metadata.current_checkpoint_id,
      });
    }
    case "LEASE_HELD":
      return new LeaseHeldError(threadId, optionalNumber(metadata.remaining_ms));
    case "LEASE_LOST":
      return new LeaseLostError(threadId);
    case "SERIALIZER_MISMATCH":
      return new SerializerMismatchError(threadId, "", metadata.thread_serializer_family);
    case "BASE_MISSING":
    case "CHAIN_TOO_LONG":
      return new BaseMissingError(`thread ${JSON.stringify(threadId)}: ${said}`);
    case "INVALID_ARGUMENT":
      return new InvalidArgumentError(said, metadata.field ?? "", optionalNumber(metadata.limit));
    case "MESSAGE_TOO_LARGE":
      return new MessageTooLargeError(`${method}: ${said}`);
    case "CORRUPT_VALUE":
    case "SEALED":
      return new CorruptValueError(`${method}: ${said}`);
  }
  switch (error.code) {
    case status.INVALID_ARGUMENT:
      return new InvalidArgumentError(`${method}: ${said}`);
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return new AccessDeniedError(`checkpointd at ${target} refused ${method}: ${said}`);
    case status.UNIMPLEMENTED:
      return new UnsupportedError(`the server at ${target} doesn't know ${method}: is it checkpointd, and as new as this client?`);
    case status.DEADLINE_EXCEEDED:
      return new DeadlineExceededError(`checkpointd at ${target} didn't answer ${method} in time`);
    case status.RESOURCE_EXHAUSTED:
      if (/larger than max/i.test(said)) return new MessageTooLargeError(`${method}: ${said}`);
  }
  return new ServerError(`checkpointd at ${target} failed in ${method}: ${said}`, status[error.code] ?? "UNKNOWN");
}

/** Returns an error to throw once more: a copy, so that each has a stack of its own. */
export function again<E extends Error>(error: E): E {
  const copied = Object.create(Object.getPrototypeOf(error)) as E;
  Object.defineProperties(copied, Object.getOwnPropertyDescriptors(error));
  return copied;
}

function integer(text: string | undefined): bigint | undefined {
  return text !== undefined && /^-?[0-9]{1,19}$/.test(text) ? BigInt(text) : undefined;
}

function optionalNumber(text: string | undefined): number | undefined {
  const found = integer(text);
  return found === undefined ? undefined : Number(found);
}
