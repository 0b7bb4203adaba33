import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig, type Plugin } from "vite";

const here = import.meta.dirname;
const out = join(here, "../lab/ui/dist");

/** What the page is built from, as lab/ui/sources_test.go lists it too. */
function sources(): string[] {
  const walk = (dir: string): string[] => readdirSync(dir).flatMap((n) => (statSync(join(dir, n)).isDirectory() ? walk(join(dir, n)) : [join(dir, n)]));
  return [...walk(join(here, "src")), ...["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"].map((n) => join(here, n))];
}

/** The hash of all sources: of each, in the order of their names, the name, a zero byte, its SHA-256 and a line's end. */
function sum(): string {
  const all = createHash("sha256");
  for (const f of sources().map((f) => relative(here, f)).sort()) {
    all.update(f + "\0" + createHash("sha256").update(readFileSync(join(here, f))).digest("hex") + "\n");
  }
  return all.digest("hex");
}

/** Writes what dist was built from, and the licences of what is in it. */
function notes(): Plugin {
  return {
    name: "slipway-notes",
    closeBundle() {
      const used = ["cytoscape"];
      const text = used.map((n) => {
        const dir = join(here, "node_modules", n);
        const p = JSON.parse(readFileSync(join(dir, "package.json"), "utf8")) as { version: string; license: string };
        return `${n} ${p.version} (${p.license})\n\n${readFileSync(join(dir, "LICENSE"), "utf8").trim()}\n`;
      });
      writeFileSync(join(out, "licences.txt"), text.join("\n\n"));
      writeFileSync(join(out, "sources.sha256"), sum() + "\n");
    },
  };
}

export default defineConfig({
  root: here,
  base: "/",
  build: {
    outDir: out, emptyOutDir: true, target: "es2022", modulePreload: false, cssCodeSplit: false, assetsInlineLimit: 0, reportCompressedSize: true,
    rollupOptions: { external: [], output: { entryFileNames: "page.js", assetFileNames: "[name][extname]" } },
  },
  plugins: [notes()],
});
