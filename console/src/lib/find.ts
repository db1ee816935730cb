/**
 * Find and hide: `httperr > 5`, `!mtls`, `name *= rev and rps > 10`, `namespace = shop or sidecar`.
 *
 * `or` binds weaker than `and`. Operators: `=` (or `is`), `!=`, `>`, `>=`, `<`, `<=`, `*=` (contains), `^=` (starts with),
 * `$=` (ends with); a name alone asks whether it holds, and `!` before it whether it does not.
 */

/** What a node or an edge says of itself. */
export type Facts = Record<string, string | number | boolean | undefined>;

export type Predicate = (facts: Facts) => boolean;

const OPERATORS = ["!=", ">=", "<=", "*=", "^=", "$=", "=", ">", "<"] as const;
type Operator = (typeof OPERATORS)[number];

/** What can be asked, with what it means; edges and nodes have different ones, and what has none of a name is not found. */
export const OPERANDS: Record<string, string> = {
  name: "name of a node",
  namespace: "its namespace (also: ns)",
  app: "its app",
  version: "its version",
  workload: "its workload",
  service: "its service",
  health: "healthy, degraded, failing or idle",
  sidecar: "it has a proxy",
  idle: "nothing has come or gone in the time",
  httpin: "requests a second that come in",
  httpout: "requests a second that go out",
  routing: "requests are routed by a rule",
  shifting: "its traffic is split by weight",
  fault: "faults are injected on purpose",
  mirror: "its traffic is mirrored",
  timeout: "it has a timeout",
  breaker: "it has a circuit breaker",
  misconfigured: "something is wrong with its rules",
  source: "name of an edge's client",
  destination: "name of an edge's server",
  protocol: "http, grpc or tcp",
  mtls: "an edge is secured by mutual TLS",
  rps: "requests a second on an edge",
  httperr: "percent of requests that fail",
  rt: "milliseconds, 95th percentile",
  throughput: "bytes a second",
};

const ALIASES: Record<string, string> = {
  ns: "namespace", wl: "workload", svc: "service", cb: "breaker", ft: "timeout", fi: "fault", ts: "shifting", rr: "routing",
  mi: "mirror", sc: "sidecar", "%httperr": "httperr", "%error": "httperr", errors: "httperr", responsetime: "rt",
  p95: "rt", rate: "rps", node: "name", from: "source", to: "destination",
};

export class NotUnderstood extends Error {}

/** @throws NotUnderstood with what is wrong, in words. */
export function parse(text: string): Predicate | null {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  const alternatives = split(trimmed, "or").map((part) => {
    const terms = split(part, "and").map(term);
    return (facts: Facts) => terms.every((holds) => holds(facts));
  });
  return (facts) => alternatives.some((holds) => holds(facts));
}

function split(text: string, word: string): string[] {
  const parts = ` ${text} `.split(new RegExp(`\\s${word}(?=\\s)`, "i")).map((part) => part.trim());
  if (parts.some((part) => part === "")) throw new NotUnderstood(`something is missing beside “${word}”`);
  return parts;
}

function term(text: string): Predicate {
  const match = /^(!|not\s+)?([%\w.-]+)\s*(?:(!=|>=|<=|\*=|\^=|\$=|=|>|<|is\s|!is\s)\s*(.+))?$/i.exec(text);
  if (!match) throw new NotUnderstood(`“${text}” is no condition`);
  const [, not, given = "", sign, value] = match;
  const name = operand(given);
  const negated = not !== undefined;
  if (sign === undefined || value === undefined) {
    return (facts) => (facts[name] === undefined ? false : holds(facts[name]) !== negated);
  }
  const compare = comparison(operator(sign), unquoted(value));
  return (facts) => (facts[name] === undefined ? false : compare(facts[name]) !== negated);
}

function operand(given: string): string {
  const name = given.toLowerCase();
  const known = ALIASES[name] ?? name;
  if (known in OPERANDS) return known;
  const like = Object.keys(OPERANDS).find((it) => it.startsWith(known.slice(0, 3)));
  throw new NotUnderstood(`nothing is called “${given}”${like ? `; did you mean “${like}”?` : ""}`);
}

function operator(sign: string): Operator {
  const plain = sign.trim().toLowerCase();
  if (plain === "is") return "=";
  if (plain === "!is") return "!=";
  return plain as Operator;
}

function unquoted(text: string): string {
  const match = /^"(.*)"$|^'(.*)'$/.exec(text.trim());
  return match ? (match[1] ?? match[2] ?? "") : text.trim();
}

function holds(fact: string | number | boolean | undefined): boolean {
  return typeof fact === "string" ? fact !== "" : typeof fact === "number" ? fact > 0 : fact === true;
}

type Fact = string | number | boolean | undefined;

function comparison(sign: Operator, wanted: string): (fact: Fact) => boolean {
  if ([">", ">=", "<", "<="].includes(sign)) {
    const limit = Number(wanted.replace(/%$/, ""));
    if (wanted === "" || Number.isNaN(limit)) throw new NotUnderstood(`“${wanted}” is no number`);
    return (fact) => {
      if (typeof fact !== "number") return false;
      if (sign === ">") return fact > limit;
      if (sign === ">=") return fact >= limit;
      return sign === "<" ? fact < limit : fact <= limit;
    };
  }
  const lower = wanted.toLowerCase();
  return (fact) => {
    const own = String(fact).toLowerCase();
    const same = typeof fact === "number" ? fact === Number(wanted) : own === lower;
    switch (sign) {
      case "=": return same;
      case "!=": return !same;
      case "*=": return own.includes(lower);
      case "^=": return own.startsWith(lower);
      default: return own.endsWith(lower);
    }
  };
}
