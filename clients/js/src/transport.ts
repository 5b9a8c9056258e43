/** Calling the server: connections, deadlines, retries within a budget, errors in the saver's words. */
import {
  Client,
  Metadata,
  credentials,
  status,
  type ChannelCredentials,
  type ServiceError,
} from "@grpc/grpc-js";

import { CheckpointdError, ServerUnavailableError, detailsOf, fromServiceError } from "./errors.js";
import { isLocal, usableToken, type Settings, type TlsOptions } from "./options.js";

/** How long to wait before the first retry, in milliseconds; doubled each time. */
const FIRST_PAUSE_MS = 50;
/** How long to wait between retries at the most, in milliseconds. A server may ask for more. */
const LONGEST_PAUSE_MS = 1000;
/** How long a server that is away is passed over, in milliseconds; doubled each time. */
const FIRST_REST_MS = 250;
const LONGEST_REST_MS = 5000;
/** The largest answer that is taken, in bytes: a server's largest message, and what gRPC adds. */
const MAX_ANSWER_BYTES = 65 * 1024 * 1024;

/** An RPC, as generated service definitions describe it. */
export interface Method<Request, Response> {
  path: string;
  requestSerialize: (value: Request) => Buffer;
  responseDeserialize: (value: Buffer) => Response;
}

class Replica {
  readonly client: Client;
  private restUntil = 0;
  private rest = FIRST_REST_MS;

  constructor(
    readonly target: string,
    settings: Settings,
  ) {
    this.client = new Client(target, credentialsOf(settings.tls), {
      "grpc.keepalive_time_ms": settings.keepalive * 1000,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.keepalive_permit_without_calls": 0,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.min_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1000,
      "grpc.max_receive_message_length": MAX_ANSWER_BYTES,
      "grpc.max_send_message_length": -1,
      // Not shared with other savers: closing one must not be felt by them.
      "grpc.use_local_subchannel_pool": 1,
      ...(isLocal(target) ? { "grpc.enable_http_proxy": 0 } : {}),
    });
  }

  get rests(): boolean {
    return Date.now() < this.restUntil;
  }

  away(): void {
    this.restUntil = Date.now() + this.rest;
    this.rest = Math.min(this.rest * 2, LONGEST_REST_MS);
  }

  well(): void {
    this.rest = FIRST_REST_MS;
    this.restUntil = 0;
  }
}

/** Makes calls, on connections that are made when they are first needed. */
export class Transport {
  private replicas: Replica[] | undefined;
  private next = 0;
  private closed = false;

  constructor(private readonly settings: Settings) {}

  /**
   * Calls an RPC, and tries again what waiting can mend until the retry budget is used up.
   *
   * All writes are safe to send again: the request names itself.
   *
   * @throws CheckpointdError
   */
  async call<Request, Response>(method: Method<Request, Response>, request: Request): Promise<Response> {
    const name = method.path.slice(method.path.lastIndexOf("/") + 1);
    const budget = this.settings.retryBudget * 1000;
    const begun = performance.now();
    let deadline: number | undefined;
    let pause = FIRST_PAUSE_MS;
    let tried = new Set<Replica>();
    for (;;) {
      const replica = this.pick(tried);
      const metadata = await this.metadata();
      const attempted = performance.now();
      let error: ServiceError;
      try {
        const answer = await this.attempt(replica, method, request, metadata);
        replica.well();
        return answer;
      } catch (caught) {
        if (typeof (caught as ServiceError).code !== "number") throw caught;
        error = caught as ServiceError;
      }
      if (this.closed) throw new CheckpointdError("this saver was closed while a call was under way");
      const now = performance.now();
      if (error.code === status.DEADLINE_EXCEEDED) {
        // Where the database gave up long before our time, the call is too much for it, and would be again.
        const own = now - attempted >= 0.9 * this.settings.timeout * 1000;
        if (own && now < begun + budget) continue;
        throw fromServiceError(error, replica.target, name);
      }
      const { reason, retryAfterMs } = detailsOf(error);
      const overloaded = error.code === status.RESOURCE_EXHAUSTED && (retryAfterMs !== undefined || reason === "OVERLOADED");
      const away = error.code === status.UNAVAILABLE || error.code === status.CANCELLED;
      if (!overloaded && !away) throw fromServiceError(error, replica.target, name);
      if (away) {
        replica.away();
        tried.add(replica);
        if (tried.size < this.settings.targets.length) continue;
        tried = new Set();
      }
      deadline ??= now + budget;
      if (now >= deadline) throw unavailable(this.settings, name, overloaded, error, reason);
      let wait = pause * (0.5 + Math.random() / 2);
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
      // Not before the server wants it, and not all at the same moment.
      if (retryAfterMs !== undefined) wait = Math.max(wait, retryAfterMs * (1 + Math.random() / 2));
      await new Promise((resolve) => setTimeout(resolve, Math.min(wait, deadline! - now)));
    }
  }

  /** Closes the connections. */
  close(): void {
    this.closed = true;
    for (const replica of this.replicas ?? []) replica.client.close();
    this.replicas = undefined;
  }

  private pick(tried: Set<Replica>): Replica {
    if (this.closed) throw new CheckpointdError("this saver is closed");
    this.replicas ??= this.settings.targets.map((target) => new Replica(target, this.settings));
    const start = this.next++;
    const order = this.replicas.map((_, at) => this.replicas![(start + at) % this.replicas!.length]!);
    return order.find((each) => !tried.has(each) && !each.rests) ?? order.find((each) => !tried.has(each)) ?? order[0]!;
  }

  private async metadata(): Promise<Metadata> {
    const metadata = new Metadata();
    const { token } = this.settings;
    const bearer = typeof token === "function" ? usableToken(await token()) : token;
    if (bearer) metadata.set("authorization", `Bearer ${bearer}`);
    return metadata;
  }

  private attempt<Request, Response>(
    replica: Replica,
    method: Method<Request, Response>,
    request: Request,
    metadata: Metadata,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      replica.client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadata,
        { deadline: Date.now() + this.settings.timeout * 1000 },
        (error, answer) => (error !== null ? reject(error) : resolve(answer!)),
      );
    });
  }
}

function credentialsOf(tls: false | TlsOptions): ChannelCredentials {
  if (tls === false) return credentials.createInsecure();
  const pem = (content: Uint8Array | string | undefined) => (content === undefined ? null : Buffer.from(content as string));
  return credentials.createSsl(pem(tls.rootCertificates), pem(tls.privateKey), pem(tls.certificateChain));
}

function unavailable(settings: Settings, name: string, overloaded: boolean, error: ServiceError, reason: string): ServerUnavailableError {
  const target = settings.targets.join(",");
  const budget = `within ${settings.retryBudget} s of retries`;
  if (overloaded) return new ServerUnavailableError(`checkpointd at ${target} had no room for ${name} ${budget}: ${error.details}`);
  if (reason) return new ServerUnavailableError(`checkpointd at ${target} couldn't answer ${budget}: ${error.details}`);
  return new ServerUnavailableError(
    `no checkpointd answered at ${target} ${budget} (${error.details}). Is it running, and is the target right? ` +
      "`checkpointd serve` starts one.",
  );
}
