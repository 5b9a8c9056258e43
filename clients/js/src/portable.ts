/** PortableSerializer: values in a form that Python reads too. */
import { JsonPlusSerializer } from "@langchain/langgraph-checkpoint";

import { UnportableValueError } from "./errors.js";

const LONE_SURROGATE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;

/**
 * LangGraph.js's own serializer, for threads that Python reads and writes as well, where savers have
 * `serde=PortableSerializer()`. The bytes are the same; what Python couldn't read, or what JSON would change without a word
 * (dates, `NaN`, instances of classes), is refused, by its name and its place.
 */
export class PortableSerializer extends JsonPlusSerializer {
  /** Returns the type and the bytes of a value. Throws UnportableValueError. */
  override async dumpsTyped(value: unknown): Promise<[string, Uint8Array]> {
    check(value, "", new Set());
    return super.dumpsTyped(value);
  }
}

function check(value: unknown, path: string, around: Set<object>): void {
  switch (typeof value) {
    case "string":
      if (LONE_SURROGATE.test(value)) throw new UnportableValueError(path, "it holds a lone surrogate, which UTF-8 doesn't carry");
      return;
    case "number":
      if (!Number.isFinite(value)) throw new UnportableValueError(path, "JSON has no infinity and no NaN");
      return;
    case "boolean":
    case "undefined":
      return;
    case "object":
      if (value === null) return;
      if (around.has(value)) throw new UnportableValueError(path, "it holds itself");
      around.add(value);
      checkObject(value, path, around);
      around.delete(value);
      return;
    default:
      throw new UnportableValueError(path, `PortableSerializer can't carry a ${typeof value}`);
  }
}

function checkObject(value: object, path: string, around: Set<object>): void {
  if (value instanceof Uint8Array) return;
  if (Array.isArray(value)) return value.forEach((item, at) => check(item, `${path}[${at}]`, around));
  if (value instanceof Set) return [...value].forEach((item, at) => check(item, `${path}[${at}]`, around));
  if (value instanceof Map) return [...value].forEach(([key, item]) => (check(key, path, around), check(item, `${path}[${String(key)}]`, around)));
  if (isMessage(value)) return checkFields(value.lc_kwargs, path, around);
  const { lg_name: name } = value as { lg_name?: string };
  if (name === "Send" && (value as { timeout?: unknown }).timeout !== undefined) {
    throw new UnportableValueError(path, "a Send with a timeout, which the other language counts otherwise");
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  const isLangGraphs = name === "Send" || name === "DeltaSnapshot" || "__overwrite__" in value;
  if (prototype !== null && prototype !== Object.prototype && !isLangGraphs) {
    throw new UnportableValueError(path, `PortableSerializer can't carry an instance of ${value.constructor?.name}`);
  }
  const { lc, type } = value as { lc?: unknown; type?: unknown };
  if ((lc === 1 || lc === 2) && type !== undefined) {
    throw new UnportableValueError(path, 'an object with the key "lc" would be taken for one of LangChain');
  }
  checkFields(value as Record<string, unknown>, path, around);
}

function checkFields(fields: Record<string, unknown>, path: string, around: Set<object>): void {
  for (const [name, item] of Object.entries(fields)) check(item, path ? `${path}.${name}` : name, around);
}

function isMessage(value: object): value is { lc_kwargs: Record<string, unknown> } {
  const { lc_serializable: serializable, lc_namespace: namespace } = value as { lc_serializable?: unknown; lc_namespace?: unknown };
  return serializable === true && Array.isArray(namespace) && namespace.join(".") === "langchain_core.messages";
}
