// What the server says; see lab/ui in the Go sources.

export interface Lab {
  lab: string;
  mode: string;
  components?: string;
  proxy: string;
  podCIDR: string;
  serviceCIDR: string;
  mtu: number;
  createdAt?: string;
  complete: boolean;
  allowChange: boolean;
  external: string;
  racks: Rack[];
  routers: Router[];
  nodes: LabNode[];
  pods: Pod[];
  services: Service[];
}
export interface Rack { name: string; subnet: string; shape?: string }
export interface Router { name: string; racks: string[] }
export interface LabNode { name: string; roles: string[] | null; rack: string; address: string; podRange?: string }
export interface Pod { key: string; node: string; address: string; system?: boolean; ports?: string[] }
export interface Service { key: string; type: string; clusterIP?: string; ports: ServicePort[]; rules: boolean }
export interface ServicePort { name?: string; port: number; protocol: string; nodePort?: number; pods: string[] }

export interface Health { state: string; problem?: string; places: Record<string, string[]> }

export interface Tables { place: string; readAt: string; changedAt?: string; sections: Section[] }
export interface Section { name: string; columns: string[]; rows: Row[] | null }
export interface Row { key: string; cells: string[]; touch?: "added" | "removed" | "changed"; was?: string[] }

export interface Rule {
  text: string; packets?: number; bytes?: number; when?: string[]; does: string; target?: string;
  own?: number; effective?: number; last?: boolean; affinitySeconds?: number; remembers?: boolean;
  endpoint?: { address: string; pod?: string; node?: string }; unknown?: boolean;
}
export interface Chain { name: string; role: string; rules: Rule[] | null }
export interface Entry { via: string; address?: string; port: number; in: string; rule: Rule }
export interface PortView {
  name: string; protocol: string; port: number; entries: Entry[] | null; refusals?: Entry[]; chains: Chain[] | null; masquerade?: Rule[];
}
export interface ServiceView {
  error?: string; service: string; type: string; node: string; program?: string; mode?: string; ports: PortView[]; nodes: string[];
  explain: { ports: { name: string; parts: { title: string; steps: string[] }[] }[] };
}

export interface Fact { name: string; value: string; verbatim?: boolean }
export interface Layer { name: string; outer: boolean; gone: boolean; new: boolean; fields: { name: string; value: string; was?: string; changed?: boolean }[] | null }
export interface Side { did: string; facts: Fact[] | null; stack: Layer[] | null; tunnel: boolean }
export interface Step {
  chip: number; arrow: number; place: string; node: string; device: string; stage: string; mark: string; markIs: string;
  hasPred: boolean; hasObs: boolean; ending?: string; quiet: boolean; text: string; since: string; at: string; notes?: string[];
  shown: Side; pred?: Side;
}
export interface TracePage {
  from: string; to: string; about: string; verdict: string; headline: string; agree: string; agreed: string; why: string;
  cause: Fact[]; compared: boolean; ways: { name: string; reply: boolean; steps: Step[] }[];
  branches: { probability: string; end: string; pod: string; verdict: string; text: string; taken: boolean }[]; notes: string[];
}
export interface TraceModel { page: TracePage; drawing: string }

export interface Report {
  file: string; started: string; conditions: { lab?: string; kernel: string; cpu: string; cpus: number; loadBefore: number };
  plan: { rounds: number }; series: Series[]; warnings?: string[];
}
export interface Series { variant: string; workload: string; path: string; target: string; params?: Record<string, string>; main?: string; metrics: Metric[] }
export interface Summary { median: number; low: number; high: number; n: number; confidence: number }
export interface Metric { name: string; unit: string; better: string; summary: Summary; ratio?: Summary; control?: string }

let lab = "";

/** about names the lab that requests are about. */
export const about = (name: string): void => void (lab = name);

/** withLab adds the lab to an address. */
export const withLab = (path: string): string => (lab ? `${path}${path.includes("?") ? "&" : "?"}lab=${encodeURIComponent(lab)}` : path);

async function call<T>(path: string, init?: RequestInit): Promise<T> {
  let r: Response;
  try {
    r = await fetch(withLab(path), { ...init, credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new Error("the server does not answer: `slipway ui` has ended");
  }
  const body = (await r.json()) as T & { error?: string };
  if (!r.ok) throw new Error(body.error ?? r.statusText);
  return body;
}

export const get = <T>(path: string): Promise<T> => call<T>(path);

export const post = <T>(path: string, body: unknown = {}): Promise<T> =>
  call<T>(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-Slipway-UI": "1" } });

export interface ScenarioLine { name: string; kind: string; level: number; minutes: number; mode: string; components?: string; title: string; running: boolean }
export interface Scenario extends ScenarioLine {
  lab: string; prose: string; steps: { title: string; prose: string; parts: { why: string; commands: string[] }[] }[]; checks: string[]; hints: number;
  state: { ready: boolean; hints: number; checks: number; step?: number; solved?: boolean; passedAt?: string } | null;
}
export interface CheckReport { passed: boolean; checks: { name: string; ok: boolean; got: string; want: string }[] }
export interface Hint { text: string; n: number; of: number }
export interface Explained { why: string; ran: { command: string; stdout: string; stderr?: string; drawing?: string }[] | null }
