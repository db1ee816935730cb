import { expect, test } from "@playwright/test";
import { controlPlane, lateen } from "./mesh";

const at = (path: string) => new URL(path, process.env.CONSOLE).href;

// As `lateen dashboard` opens it.
test.beforeEach(async ({ page }) => {
  await page.goto(process.env.OWNED!);
  await expect(page.getByRole("status").first()).not.toHaveText("Connecting…");
  await expect(page).not.toHaveURL(/key=/);
});

test("traffic is shifted, really, and shifted back", async ({ page }) => {
  await page.goto(at("/services?host=reviews.default.svc.cluster.local"));
  await page.getByRole("button", { name: "Shift traffic…" }).click();
  const apply = page.getByRole("button", { name: "Apply", exact: true });
  await expect(apply).toBeDisabled();
  const slider = page.getByRole("slider", { name: "Percent for v3" });
  await slider.fill("100");
  await page.getByRole("button", { name: "Preview" }).click();
  const preview = page.getByRole("region", { name: "What it would do" });
  await expect(preview.getByText("VirtualService default/reviews: created")).toBeVisible();
  await preview.locator("summary", { hasText: "route" }).first().click();
  await expect(preview.getByRole("region", { name: "Lines that differ" }).first()).toContainText("v3");
  await apply.click();
  await expect(page.getByText(/in force from revision/)).toBeVisible();
  // What a proxy does is what counts.
  lateen("apply", "--wait", "-f", "samples/bookinfo/gateway.yaml");
  const explained = () =>
    (JSON.parse(lateen("explain", "--from", "productpage-v1", "--to", "http://reviews:9080/reviews/0", "-o", "json")) as { results: { servedBy: string | null }[] }).results.map((it) => it.servedBy);
  expect(explained()).toEqual([expect.stringMatching(/^reviews-v3/)]);
  await page.goto(at("/graph?animate=no&window=10s&hide=idle"));
  await expect(page.getByRole("button", { name: /^reviews v3/ })).toBeVisible();
  await expect(page.getByRole("button", { name: /^reviews v1/ })).toHaveCount(0);
  lateen("delete", "virtualservice", "reviews");
  await expect(page.getByRole("button", { name: /^reviews v1/ })).toBeVisible();
});

test("what else is done with requests is written by the same wizard, and undone", async ({ page }) => {
  await page.goto(at("/services?host=reviews.default.svc.cluster.local&wizard=shift"));
  const chosen: [string, [string, string][]][] = [
    ["Route by a header", [["Header", "end-user"], ["Is", "jason"]]],
    ["Timeout and retries", [["Timeout", "2s"], ["Tries again", "2"]]],
    ["Faults on purpose", [["Status instead", "418"], ["Percent aborted", "50"]]],
  ];
  for (const [section, fields] of chosen) {
    await page.getByText(section, { exact: true }).click();
    for (const [label, value] of fields) await page.getByLabel(label, { exact: true }).fill(value);
  }
  await expect(page.getByRole("alert")).toContainText("leads to a version");
  await page.getByLabel("Goes to").selectOption("v2");
  await page.getByRole("button", { name: "Preview" }).click();
  await page.getByRole("button", { name: "Apply", exact: true }).click();
  await expect(page.getByText(/in force from revision/)).toBeVisible();
  const results = (...more: string[]) =>
    (JSON.parse(lateen("explain", "--from", "productpage-v1", "--to", "http://reviews:9080/reviews/0", ...more, "-o", "json")) as { results: { status: number | null; servedBy: string | null; share: number }[] }).results;
  expect(results().find((it) => it.status === 418)?.share).toBeCloseTo(0.5);
  const jason = results("-H", "end-user: jason").filter((it) => it.servedBy);
  expect(jason.map((it) => it.servedBy)).toEqual([expect.stringMatching(/^reviews-v2/)]);
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.getByText("Undone")).toBeVisible();
  expect(results().some((it) => it.status === 418)).toBe(false);
});

test("only who calls a workload now is allowed to, by what has been seen", async ({ page }) => {
  await page.goto(at("/workloads?namespace=default&name=details-v1"));
  await page.getByRole("button", { name: "Allow only who calls it now…" }).click();
  await expect(page.getByText("cluster.local/ns/default/sa/bookinfo-productpage")).toBeVisible();
  await page.getByRole("button", { name: "Preview" }).click();
  const preview = page.getByRole("region", { name: "What it would do" });
  await expect(preview.getByText(/ratings-v1 → details-v1: allowed → denied/)).toBeVisible();
  await expect(preview.getByText(/productpage-v1 → details-v1/)).toHaveCount(0);
  await page.getByRole("button", { name: "Apply", exact: true }).click();
  await expect(page.getByText(/in force from revision/)).toBeVisible();
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.getByText("Undone")).toBeVisible();
});

test("an object is written with what is wrong said before, then applied, undone and gone", async ({ page }) => {
  await page.goto(at("/config?edit=new"));
  const text = page.getByRole("textbox", { name: /YAML/ });
  await text.fill("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: mine}\nspec:\n  hosts: [ratings]\n  http:\n  - route:\n    - destination: {host: nobody}\n      wieght: 5\n");
  await page.getByRole("button", { name: "Preview" }).click();
  const preview = page.getByRole("region", { name: "What it would do" });
  await expect(preview.getByText(/wieght/).first()).toBeVisible();
  await expect(page.getByRole("button", { name: "Apply", exact: true })).toBeDisabled();
  await text.fill("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: mine}\nspec:\n  selector: {matchLabels: {app: ratings}}\n  action: DENY\n  rules:\n  - from:\n    - source: {principals: ['*/sa/bookinfo-reviews']}\n");
  await page.getByRole("button", { name: "Preview" }).click();
  await expect(preview.getByText("AuthorizationPolicy default/mine: created")).toBeVisible();
  await expect(preview.getByText(/reviews-v2 → ratings-v1: allowed → denied/)).toBeVisible();
  await page.getByRole("button", { name: "Apply", exact: true }).click();
  await expect(page.getByText(/in force from revision/)).toBeVisible();
  const other = await page.context().newPage();
  await other.goto(at("/security"));
  await expect(other.getByRole("button", { name: "reviews-v2 to ratings-v1: denied" })).toBeVisible();
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.getByText("Undone")).toBeVisible();
  // The other page is told.
  await expect(other.getByRole("button", { name: "reviews-v2 to ratings-v1: allowed" })).toBeVisible();
  await other.close();
});

test("what is wrong with an object is said at its line", async ({ page }) => {
  await page.goto(at("/config?edit=new"));
  await page.getByRole("textbox", { name: /YAML/ }).fill("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: lost}\nspec:\n  hosts: [ratings]\n  http:\n  - route:\n    - destination: {host: nobody-at-all}\n");
  await page.getByRole("button", { name: "Preview" }).click();
  await expect(page.getByText("IST0101").first()).toBeVisible();
  await page.getByRole("button", { name: "Apply", exact: true }).click();
  await expect(page.getByText(/in force from revision/)).toBeVisible();
  await page.goto(at("/config?show=problems"));
  await page.getByRole("link", { name: "lost" }).click();
  await expect(page.getByText("IST0101").first()).toBeVisible();
  await page.getByRole("button", { name: "Delete…" }).click();
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await expect(page).toHaveURL(/\/config$/);
  await expect(page.getByRole("link", { name: "lost" })).toHaveCount(0);
});

test("a control plane that is away is said to be, and everything heals without a reload", async ({ page }) => {
  await page.goto(at("/graph?animate=no"));
  await expect(page.getByRole("button", { name: /^productpage v1/ })).toBeVisible();
  await page.evaluate(() => ((window as { marked?: boolean }).marked = true));
  // Until its answers are let through again, it is away, however quickly it is started anew.
  await page.route("**/api/**", (route) => route.abort());
  process.kill(controlPlane(), "SIGKILL");
  await expect(page.getByText("Control plane away; proxies keep what they have")).toBeVisible();
  await page.unroute("**/api/**");
  await expect(page.getByText("Control plane away; proxies keep what they have")).toHaveCount(0);
  await expect(page.getByRole("button", { name: /^productpage v1.*a second in/ })).toBeVisible({ timeout: 180_000 });
  expect(await page.evaluate(() => (window as { marked?: boolean }).marked)).toBe(true);
});

test("nothing is changed for pages of others", async ({ request }) => {
  const body = { data: "x", headers: { "content-type": "text/plain" } };
  const foreign = await request.post(at("/api/v1/apply"), body);
  expect(foreign.status()).toBe(403);
  const forged = await request.post(at("/api/v1/apply"), { data: "x", headers: { "x-lateen-console": "1", origin: "https://evil.example" } });
  expect(forged.status()).toBe(403);
  const stranger = await request.post(at("/api/v1/apply"), { data: "x", headers: { "x-lateen-console": "1" } });
  expect(stranger.status()).toBe(403);
});

test("whoever has no key may look, and is told so", async ({ browser }) => {
  const page = await (await browser.newContext()).newPage();
  await page.goto(at("/config"));
  await expect(page.getByRole("link", { name: "bookinfo" }).first()).toBeVisible();
  await page.goto(at("/mesh"));
  await expect(page.getByText("look", { exact: true })).toBeVisible();
  await page.goto(at("/config?edit=new"));
  await expect(page.getByText(/lateen dashboard/)).toBeVisible();
  await page.getByRole("button", { name: "Preview" }).click();
  await expect(page.getByRole("button", { name: "Apply", exact: true })).toBeDisabled();
  await page.context().close();
});
