/** How a saver talks to its server: what can be given, checked, with the environment's defaults. */
import type { SerializerProtocol } from "@langchain/langgraph-checkpoint";

import { InvalidArgumentError } from "./errors.js";

/** Where a server listens that was started without options. */
export const DEFAULT_TARGET = "127.0.0.1:50051";

/** The longest time that can be given, in seconds. */
const LONGEST_SECONDS = 24 * 86_400;

/** Certificates, each as PEM. */
export interface TlsOptions {
  /** The certificates of the authorities to trust. Default: those that Node.js trusts. */
  rootCertificates?: Uint8Array | string;
  /** The client's own key, for mutual TLS. */
  privateKey?: Uint8Array | string;
  /** The client's own certificate, for mutual TLS. */
  certificateChain?: Uint8Array | string;
}

/** What a `GrpcSaver` can be given. */
export interface GrpcSaverOptions {
  /**
   * The server, "host:port" or "unix:path"; several, separated by commas, are replicas. Default: the environment's
   * CHECKPOINTD_TARGET, or 127.0.0.1:50051.
   */
  target?: string;
  /** Turns values into bytes and back. Default: LangGraph.js's JsonPlusSerializer. */
  serde?: SerializerProtocol;
  /**
   * A bearer token, or a function that returns one and is asked before each call. Default: the environment's
   * CHECKPOINTD_TOKEN. Not sent in plain text off the machine.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * Whether the token may be sent in plain text off the machine, where something else protects the way, such as a mesh.
   * Default: the environment's CHECKPOINTD_INSECURE_TOKEN, or false.
   */
  insecureToken?: boolean;
  /** True for TLS with the authorities that Node.js trusts, or certificates. Default: plain text. */
  tls?: boolean | TlsOptions;
  /** How long one attempt of a call may take, in seconds. Default: 30. */
  timeout?: number;
  /** How long a call is tried again while the server is unavailable, in seconds; 0: not at all. Default: 30. */
  retryBudget?: number;
  /** How often a connection with calls under way is pinged, in seconds. The server takes pings every 10 s and more seldom. Default: 20. */
  keepalive?: number;
  /**
   * "optimistic" (default): a run that was overtaken by another on its thread gets VersionConflictError. "lastWriteWins":
   * it overwrites the other, as other savers do.
   */
  concurrency?: "optimistic" | "lastWriteWins";
}

/** The options of a saver, checked. */
export interface Settings {
  targets: string[];
  token: string | (() => string | Promise<string>) | undefined;
  tls: false | TlsOptions;
  timeout: number;
  retryBudget: number;
  keepalive: number;
  optimistic: boolean;
}

/** Checks options and fills in defaults. Throws InvalidArgumentError. */
export function settingsOf(options: GrpcSaverOptions): Settings {
  const target = options.target ?? process.env.CHECKPOINTD_TARGET ?? DEFAULT_TARGET;
  if (typeof target !== "string") throw new InvalidArgumentError(`target: must be a text like ${DEFAULT_TARGET}`, "target");
  const targets = /^ipv[46]:/.test(target) ? [target] : target.split(",").map((each) => each.trim());
  for (const each of targets) checkAddress(each);
  const concurrency = options.concurrency ?? "optimistic";
  if (concurrency !== "optimistic" && concurrency !== "lastWriteWins") {
    throw new InvalidArgumentError('concurrency: must be "optimistic" or "lastWriteWins"', "concurrency");
  }
  const token = options.token ?? (process.env.CHECKPOINTD_TOKEN || undefined);
  const settings: Settings = {
    targets,
    token: typeof token === "string" ? usableToken(token) : token,
    tls: tlsOf(options.tls),
    timeout: seconds("timeout", options.timeout ?? 30, false),
    retryBudget: seconds("retryBudget", options.retryBudget ?? 30, true),
    keepalive: seconds("keepalive", options.keepalive ?? 20, false),
    optimistic: concurrency === "optimistic",
  };
  checkTokenPath(settings, options.insecureToken ?? insecureTokenOfEnvironment());
  return settings;
}

/** Returns a token without the white space around it. No message repeats any of it. Throws InvalidArgumentError. */
export function usableToken(token: unknown): string {
  if (typeof token !== "string") throw new InvalidArgumentError("token: must be a text, or a function that returns one", "token");
  const trimmed = token.trim();
  if (!/^[ -~]*$/.test(trimmed)) {
    throw new InvalidArgumentError("token: holds a character that can't be sent; a token is one line of ASCII", "token");
  }
  return trimmed;
}

/** Whether a target is on this machine. */
export function isLocal(target: string): boolean {
  if (/^unix(-abstract)?:/.test(target)) return true;
  const host = target.replace(/^(dns:(\/+)?|ipv[46]:)/, "").replace(/:[0-9]+$/, "").replace(/^\[|\]$/g, "");
  return host === "localhost" || host === "::1" || /^127\.[0-9.]+$/.test(host);
}

function checkTokenPath(settings: Settings, insecureToken: boolean): void {
  if (settings.token === undefined || settings.token === "" || settings.tls !== false) return;
  const away = settings.targets.find((target) => !isLocal(target));
  if (away === undefined) return;
  if (!insecureToken) {
    throw new InvalidArgumentError(
      `token: would be sent in plain text to ${away}; set tls, or insecureToken (CHECKPOINTD_INSECURE_TOKEN) where something ` +
        "else protects the way, such as a mesh",
      "token",
    );
  }
  if (["grpc_proxy", "https_proxy", "http_proxy"].some((name) => process.env[name])) {
    throw new InvalidArgumentError(
      "token: would be sent in plain text through the proxy that the environment names; set tls, or unset the proxy",
      "token",
    );
  }
}

function insecureTokenOfEnvironment(): boolean {
  const given = (process.env.CHECKPOINTD_INSECURE_TOKEN ?? "").trim().toLowerCase();
  if (["1", "true", "t", "yes", "y", "on"].includes(given)) return true;
  if (["", "0", "false", "f", "no", "n", "off"].includes(given)) return false;
  throw new InvalidArgumentError("insecureToken: CHECKPOINTD_INSECURE_TOKEN must be true or false", "insecureToken");
}

function tlsOf(given: boolean | TlsOptions | undefined): false | TlsOptions {
  if (given === undefined || given === false) return false;
  if (given === true) return {};
  if (typeof given !== "object" || given === null) throw new InvalidArgumentError("tls: must be true, false or certificates", "tls");
  if ((given.privateKey === undefined) !== (given.certificateChain === undefined)) {
    const missing = given.privateKey === undefined ? "privateKey" : "certificateChain";
    throw new InvalidArgumentError(`tls: privateKey and certificateChain belong together, and ${missing} is missing`, "tls");
  }
  for (const [name, pem] of Object.entries(given)) {
    if (pem !== undefined && !Buffer.from(pem as string).includes("-----BEGIN ")) {
      throw new InvalidArgumentError(`tls: ${name} holds no PEM, which begins with "-----BEGIN"; a file's content goes there`, "tls");
    }
  }
  return given;
}

function checkAddress(target: string): void {
  const port = /^(?:\[[0-9A-Fa-f:.%]+\]|[^:/@\s]+):([0-9]{1,5})$/.exec(target);
  if ((port !== null && Number(port[1]) <= 65535) || (/^(unix|unix-abstract|dns|ipv4|ipv6|xds):./.test(target) && !target.includes("@"))) return;
  // What looks like a URL may hold a password.
  const given = /[@?]/.test(target) ? "what was given" : JSON.stringify(target);
  throw new InvalidArgumentError(
    `target: ${given} is not an address of a checkpointd; give host:port, like ${DEFAULT_TARGET}, or unix:path, or several of ` +
      "them, separated by commas",
    "target",
  );
}

function seconds(name: string, value: unknown, zero: boolean): number {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0 || (value === 0 && !zero) || value > LONGEST_SECONDS) {
    throw new InvalidArgumentError(`${name}: must be ${zero ? "0" : "more than 0"} seconds and at most ${LONGEST_SECONDS}`, name);
  }
  return value;
}
