// What a view is, and what it may ask of the page.

import type { Health, Lab, Tables, ServiceView } from "./api";
import type { Thing } from "./map";

export interface View {
  readonly root: HTMLElement;
  /** show is called when the view comes on, and again when the language changes. */
  show(): void;
  hide?(): void;
  /** key handles a key while the view is on; true: it was for the view. */
  key?(e: KeyboardEvent): boolean;
  lab?(lab: Lab): void;
  health?(h: Health): void;
  touched?(place: string): void;
  tables?(t: Tables): void;
  service?(s: ServiceView): void;
  /** restyle is called when light and dark were switched. */
  restyle?(): void;
}

/** Watch is what a view wants to be told of, besides the lab itself. */
export interface Watch { table?: string; service?: string; node?: string }

export interface Page {
  lab(): Lab | undefined;
  health(): Health;
  go(view: string): void;
  openTables(place: string): void;
  openTrace(from?: string, to?: string): void;
  openService(key: string): void;
  select(t: Thing): void;
  watch(w: Watch): void;
  /** use shows another lab; "" is the one that the server began with. */
  use(lab: string): void;
  fail(e: unknown): void;
}
