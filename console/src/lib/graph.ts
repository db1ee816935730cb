/** The graph: from what there is and what is called to nodes, edges and what is known of each. Pure. */

import type { Inventory, Service, Trait, Workload } from "./api";
import { parse, type Facts } from "./find";
import { ofReplicas, ofRequests, worst, type Health } from "./health";
import { empty, errorPercent, sum, type End, type Sum, type Traffic, type TrafficEdge } from "./traffic";

export const KINDS = ["versioned", "app", "workload", "service"] as const;
export type Kind = (typeof KINDS)[number];
export const KIND_NAMES: Record<Kind, string> = {
  versioned: "Versioned app",
  app: "App",
  workload: "Workload",
  service: "Service",
};

export interface Node {
  id: string;
  kind: Kind | "outside";
  /** What is written large. */
  name: string;
  /** And small below it. */
  detail: string;
  namespace: string;
  /** Those that it stands for, as `namespace/name`. */
  workloads: Workload[];
  services: Service[];
  /** A gateway, something outside the mesh, or neither. */
  role: "gateway" | "outside" | "";
  health: Health;
  idle: boolean;
  sidecar: boolean;
  traits: Trait[];
  /** Findings about its rules. */
  misconfigured: boolean;
  incoming: Sum;
  outgoing: Sum;
  facts: Facts;
}

export interface Edge {
  id: string;
  from: string;
  to: string;
  sum: Sum;
  health: Health;
  facts: Facts;
}

export interface Graph { nodes: Node[]; edges: Edge[] }

export interface Options {
  kind: Kind;
  /** None: all. */
  namespaces: string[];
  /** Show what is not called. */
  idle: boolean;
  /** `Kind namespace/name` of objects with findings. */
  faulty: Set<string>;
  /** Names of proxies that are behind or refuse. */
  unsynced: Set<string>;
}

const OUTSIDE = "outside";

interface Draft { node: Node; incoming: TrafficEdge[]; outgoing: TrafficEdge[] }

/** Everything that has been seen, by id. */
class Builder {
  readonly drafts = new Map<string, Draft>();
  readonly #workloads: Map<string, Workload>;
  readonly #services: Map<string, Service>;

  constructor(
    readonly inventory: Inventory,
    readonly options: Options,
  ) {
    this.#workloads = new Map(inventory.workloads.map((it) => [`${it.namespace}/${it.name}`, it]));
    this.#services = new Map(inventory.services.map((it) => [it.host, it]));
  }

  addWorkload(workload: Workload) {
    const services = workload.services.flatMap((host) => this.#services.get(host) ?? []);
    if (this.options.kind === "service") {
      if (services.length === 0) return [this.#ofWorkload(workload, [])];
      return services.map((service) => this.#ofService(service));
    }
    return [this.#ofWorkload(workload, services)];
  }

  addService(service: Service) {
    if (this.options.kind === "service" || service.workloads.length === 0) this.#ofService(service);
  }

  /** The node of an end of a call. */
  end(end: End, service: TrafficEdge["service"] | null): Draft {
    const host = service?.host;
    const called = host ? this.#services.get(host) : undefined;
    const workload = end.workload ? this.#workloads.get(`${end.namespace}/${end.workload}`) : undefined;
    if (called && (this.options.kind === "service" || !end.workload)) return this.#ofService(called);
    if (workload) return this.addWorkload(workload)[0]!;
    if (end.workload) return this.#gone(end);
    return host ? this.#unknownHost(host) : this.#outside();
  }

  #ofWorkload(workload: Workload, services: Service[]): Draft {
    const { namespace, app, version, name, proxy } = workload;
    const kind = this.options.kind === "service" ? "workload" : this.options.kind;
    const versioned = version !== "latest" && version !== "";
    const [id, title, detail] =
      kind === "app"
        ? [`app/${namespace}/${app}`, app, ""]
        : kind === "versioned"
          ? [`app/${namespace}/${app}/${version}`, app, versioned ? version : ""]
          : [`workload/${namespace}/${name}`, name, ""];
    const draft = this.#draft(id, () => ({
      kind,
      name: title,
      detail,
      namespace,
      role: proxy === "gateway" ? "gateway" : "",
      sidecar: true,
    }));
    const { node } = draft;
    if (!node.workloads.includes(workload)) node.workloads.push(workload);
    for (const service of services) if (!node.services.includes(service)) node.services.push(service);
    node.sidecar &&= proxy !== "none";
    return draft;
  }

  #ofService(service: Service): Draft {
    const draft = this.#draft(`service/${service.host}`, () => ({
      kind: "service",
      name: service.external ? service.host : service.name,
      detail: "",
      namespace: service.namespace,
      role: service.external ? "outside" : "",
      sidecar: true,
    }));
    const { node } = draft;
    if (node.services.length === 0) {
      node.services.push(service);
      const own = service.workloads.flatMap((key) => this.#workloads.get(key) ?? []);
      node.workloads.push(...own);
      node.sidecar = own.every((workload) => workload.proxy !== "none");
      if (own.some((workload) => workload.proxy === "gateway")) node.role = "gateway";
    }
    return draft;
  }

  /** A workload that has called and is there no more. */
  #gone(end: End): Draft {
    const namespace = end.namespace ?? "";
    return this.#draft(`workload/${namespace}/${end.workload}`, () => ({
      kind: "workload",
      name: end.workload ?? "",
      detail: "not there any more",
      namespace,
      role: "",
      sidecar: true,
    }));
  }

  #unknownHost(host: string): Draft {
    return this.#draft(`host/${host}`, () => ({
      kind: OUTSIDE, name: host, detail: "outside the mesh", namespace: "", role: "outside", sidecar: true,
    }));
  }

  #outside(): Draft {
    return this.#draft(OUTSIDE, () => ({
      kind: OUTSIDE, name: "outside", detail: "callers without a proxy", namespace: "", role: "outside", sidecar: true,
    }));
  }

  #draft(
    id: string,
    make: () => Pick<Node, "kind" | "name" | "detail" | "namespace" | "role" | "sidecar">,
  ): Draft {
    const known = this.drafts.get(id);
    if (known) return known;
    const node: Node = {
      id,
      ...make(),
      workloads: [],
      services: [],
      health: "idle",
      idle: true,
      traits: [],
      misconfigured: false,
      incoming: empty(),
      outgoing: empty(),
      facts: {},
    };
    const draft = { node, incoming: [], outgoing: [] };
    this.drafts.set(id, draft);
    return draft;
  }
}

export function build(inventory: Inventory, traffic: Traffic | null, options: Options): Graph {
  const builder = new Builder(inventory, options);
  for (const workload of inventory.workloads) builder.addWorkload(workload);
  for (const service of inventory.services) builder.addService(service);
  const calls = new Map<string, { from: string; to: string; edges: TrafficEdge[] }>();
  for (const edge of traffic?.edges ?? []) {
    const from = builder.end(edge.source, null);
    const to = builder.end(edge.destination, edge.service);
    from.outgoing.push(edge);
    to.incoming.push(edge);
    const id = `${from.node.id} → ${to.node.id}`;
    const known = calls.get(id);
    if (known) known.edges.push(edge);
    else calls.set(id, { from: from.node.id, to: to.node.id, edges: [edge] });
  }
  const seconds = traffic?.windowSeconds ?? 60;
  const nodes = [...builder.drafts.values()].map((draft) => finished(draft, seconds, options));
  const names = new Map(nodes.map((node) => [node.id, node.name]));
  return chosen(nodes, [...calls].map(([id, call]) => edgeOf(id, call, names, seconds)), options);
}

function finished({ node, incoming, outgoing }: Draft, seconds: number, options: Options): Node {
  node.incoming = sum(incoming, seconds);
  node.outgoing = sum(outgoing, seconds);
  node.idle = node.incoming.rate === 0 && node.outgoing.rate === 0;
  const pods = node.workloads.flatMap((it) => it.pods.map((pod) => ({ ...pod, namespace: it.namespace })));
  const unsynced = pods.filter((pod) => options.unsynced.has(`${pod.name}.${pod.namespace}`)).length;
  const replicas = ofReplicas(pods.filter((pod) => pod.ready).length, pods.length, unsynced);
  const called = ofRequests(node.incoming.outcomes);
  node.health = node.idle && replicas === "healthy" ? "idle" : worst([replicas, called]);
  node.traits = [...new Set(node.services.flatMap((it) => it.traits))].filter((it) => it !== "gateway");
  const rules = [...node.services.flatMap((it) => [it.object, ...it.rules]), ...node.workloads.flatMap((it) => it.policies)];
  node.misconfigured = rules.some((rule) => options.faulty.has(`${rule.kind} ${rule.namespace}/${rule.name}`));
  node.facts = nodeFacts(node);
  return node;
}

function nodeFacts(node: Node): Facts {
  const has = (trait: Trait) => node.traits.includes(trait);
  return {
    name: node.name,
    namespace: node.namespace,
    app: node.workloads[0]?.app ?? node.name,
    version: node.workloads.map((it) => it.version).join(" "),
    workload: node.workloads.map((it) => it.name).join(" "),
    service: node.services.map((it) => it.name).join(" "),
    health: node.health === "failure" ? "failing" : node.health,
    sidecar: node.sidecar,
    idle: node.idle,
    httpin: node.incoming.rate,
    httpout: node.outgoing.rate,
    httperr: errorPercent(node.incoming),
    routing: has("routing"),
    shifting: has("shifting"),
    fault: has("fault"),
    mirror: has("mirror"),
    timeout: has("timeout"),
    breaker: has("breaker"),
    misconfigured: node.misconfigured,
  };
}

function edgeOf(
  id: string,
  { from, to, edges }: { from: string; to: string; edges: TrafficEdge[] },
  names: Map<string, string>,
  seconds: number,
): Edge {
  const total = sum(edges, seconds);
  const facts: Facts = {
    source: names.get(from) ?? from,
    destination: names.get(to) ?? to,
    protocol: total.outcomes.protocol,
    mtls: total.mtls === null ? false : total.mtls === 1,
    rps: total.rate,
    httperr: errorPercent(total),
    rt: total.latency?.p95 ?? 0,
    throughput: total.bytes,
  };
  return { id, from, to, sum: total, health: ofRequests(total.outcomes), facts };
}

/** Of the namespaces asked for, with whoever calls them or is called from there. */
function chosen(nodes: Node[], edges: Edge[], options: Options): Graph {
  const of = (node: Node) => options.namespaces.length === 0 || options.namespaces.includes(node.namespace);
  const inside = new Set(nodes.filter(of).map((node) => node.id));
  const kept = edges.filter((edge) => inside.has(edge.from) || inside.has(edge.to));
  const touched = new Set(kept.flatMap((edge) => [edge.from, edge.to]));
  const shown = (node: Node) => touched.has(node.id) || (inside.has(node.id) && (options.idle || !node.idle));
  return { nodes: nodes.filter(shown), edges: kept };
}

/** What is found, and what is left after hiding. @throws NotUnderstood */
export function filter(graph: Graph, find: string, hide: string): { graph: Graph; found: Set<string> | null } {
  const [finds, hides] = [parse(find), parse(hide)];
  let { nodes, edges } = graph;
  if (hides) {
    nodes = nodes.filter((node) => !hides(node.facts));
    const left = new Set(nodes.map((node) => node.id));
    edges = edges.filter((edge) => !hides(edge.facts) && left.has(edge.from) && left.has(edge.to));
  }
  if (!finds) return { graph: { nodes, edges }, found: null };
  const found = [...nodes, ...edges].filter((it) => finds(it.facts)).map((it) => it.id);
  return { graph: { nodes, edges }, found: new Set(found) };
}

/** What a layout depends on; figures do not move anything. */
export const shapeKey = (graph: Graph) =>
  [...graph.nodes.map((node) => node.id), "", ...graph.edges.map((edge) => edge.id)].sort().join("\n");
