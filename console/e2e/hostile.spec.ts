import { expect, test, type Page } from "@playwright/test";
import { call, inventory, traffic, type Wanted } from "../test/mesh";
import type { TrafficEdge } from "../src/lib/traffic";

const at = (path: string) => new URL(path, process.env.CONSOLE).href;

/** In place of the control plane's, with names and sizes that no mesh here has. */
async function pretend(page: Page, workloads: Wanted[], edges: TrafficEdge[]) {
  const whole = inventory(workloads);
  await page.route("**/api/v1/inventory", (route) => route.fulfill({ json: whole }));
  await page.route("**/api/v1/traffic**", (route) => route.fulfill({ json: traffic(edges) }));
  const beat = `event: traffic\ndata: ${JSON.stringify(traffic(edges))}\n\n`;
  await page.route("**/api/v1/traffic/stream**", (route) => route.fulfill({ contentType: "text/event-stream", body: beat.repeat(3) }));
  const objects = workloads.map(({ app }) => ({ kind: "VirtualService", namespace: "default", name: app, file: `${app}.yaml`, line: 3, revision: 1, errors: 1, warnings: 0 }));
  await page.route("**/api/v1/config", (route) => route.fulfill({ json: { revision: 1, objects } }));
  const diagnostics = workloads.map(({ app }) => ({ code: "IST0101", severity: "error", object: { kind: app, namespace: app, name: app }, file: app, line: 1, column: 1, message: app, field: app, help: app }));
  await page.route("**/api/v1/diagnostics", (route) => route.fulfill({ json: { revision: 1, diagnostics } }));
}

test("hostile names are shown, and nothing else", async ({ page }) => {
  const names = ["<script>document.title='taken'</script>", "<img src=x onerror=document.title='taken'>", "x".repeat(300), "\u202Eelcarо\u05D0\u05D1\u05D2", "\"onclick=\"document.title='taken'", "javascript:document.title='taken'"];
  const problems: string[] = [];
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(error.message));
  await pretend(page, names.map((app) => ({ app })), names.map((app) => call(`default/${names[0]}-v1`, `default/${app}-v1`)));
  for (const path of ["/", "/graph?animate=no", "/workloads", "/services", "/config", `/graph?animate=no&select=${encodeURIComponent(`app/default/${names[1]}/v1`)}`]) {
    for (const width of [1280, 400]) {
      await page.setViewportSize({ width, height: 800 });
      await page.goto(at(path));
      await expect(page.getByText("img src=x").first()).toBeVisible();
      expect(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), `${path} at ${width}`).toBe(true);
      expect(await page.locator("main img, main script").count()).toBe(0);
      expect(await page.title()).not.toContain("taken");
    }
  }
  expect(problems).toEqual([]);
});

test("a mesh of five hundred services can be worked with", async ({ page }) => {
  const workloads = Array.from({ length: 500 }, (_, index) => ({ app: `service-${index}`, namespace: `team-${index % 20}` }));
  const of = (index: number) => `team-${index % 20}/service-${index}-v1`;
  const edges = Array.from({ length: 900 }, (_, index) => call(of(index % 480), of((index * 7 + 20) % 500)));
  await pretend(page, workloads, edges);
  await page.goto(at("/graph"));
  await expect(page.getByRole("group", { name: /^Topology: 500 nodes/ })).toBeVisible({ timeout: 180_000 });
  await page.getByRole("combobox", { name: "Find" }).fill("name = service-42");
  await expect(page.getByText("1 match", { exact: true })).toBeVisible();
  await page.getByRole("combobox", { name: "Hide" }).fill("namespace != team-2");
  await expect(page.getByRole("group", { name: /^Topology: 25 nodes/ })).toBeVisible();
});
