import AxeBuilder from "@axe-core/playwright";
import { expect, test, type Page } from "@playwright/test";

const BASE = process.env.CONSOLE!;
const at = (path: string) => new URL(path, BASE).href;

/** Each page, and what is there once it has been filled. */
const PAGES: [string, string, (page: Page) => Promise<void>][] = [
  ["overview", "/", async (page) => expect(page.getByRole("link", { name: "istio-system" })).toBeVisible()],
  ["graph", "/graph?animate=no", async (page) => expect(page.getByRole("button", { name: /^productpage v1/ })).toBeVisible()],
  ["requests", "/requests?to=ratings", async (page) => expect(page.getByRole("region", { name: "Requests" }).getByRole("link", { name: "Explain" }).first()).toBeVisible()],
  ["workloads", "/workloads", async (page) => expect(page.getByRole("link", { name: "reviews-v1" })).toBeVisible()],
  ["workload", "/workloads?namespace=default&name=reviews-v1", async (page) => expect(page.getByRole("heading", { name: "Pods" })).toBeVisible()],
  ["services", "/services", async (page) => expect(page.getByRole("link", { name: "reviews", exact: true })).toBeVisible()],
  ["service", "/services?host=reviews.default.svc.cluster.local&wizard=shift", async (page) => expect(page.getByRole("slider", { name: "Percent for v1" })).toBeVisible()],
  ["config", "/config", async (page) => expect(page.getByRole("link", { name: "bookinfo" }).first()).toBeVisible()],
  ["object", "/config?kind=VirtualService&namespace=default&name=bookinfo", async (page) => expect(page.getByText("productpage").first()).toBeVisible()],
  ["security", "/security", async (page) => expect(page.getByRole("button", { name: /productpage-v1 to reviews-v1: allowed/ })).toBeVisible()],
  ["explain", "/explain?from=productpage-v1&ns=default&to=http%3A%2F%2Freviews%3A9080%2Freviews%2F0", async (page) => expect(page.getByRole("region", { name: "Its way" })).toBeVisible()],
  ["mesh", "/mesh", async (page) => expect(page.getByRole("heading", { name: "Certificate authority" })).toBeVisible()],
];

// With everything that its owner may do.
test.beforeEach(({ page }) => page.goto(process.env.OWNED!));

for (const [name, path, filled] of PAGES) {
  test(`${name} is whole, wide and narrow, light and dark, and open to everybody`, async ({ page }) => {
    const problems: string[] = [];
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(error.message));
    for (const scheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      for (const [width, height] of [[1280, 800], [400, 800]] as const) {
        await page.setViewportSize({ width, height });
        await page.goto(at(path));
        await filled(page);
        await expect(page.locator("code", { hasText: /^lateen / }).first()).toBeVisible();
        const wider = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
        expect(wider, `nothing sticks out at ${width}`).toBe(false);
        await page.screenshot({ path: `test-results/screens/${name}-${width}-${scheme}.png` });
        // Narrow and dark has the parts of the one and the colours of the other.
        if (width === 400 && scheme === "dark") continue;
        const { violations } = await new AxeBuilder({ page }).analyze();
        expect(violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).slice(0, 3).join(" | ")}`)).toEqual([]);
      }
    }
    expect(problems).toEqual([]);
  });
}

test("a workload's page shows what its proxy is sent", async ({ page }) => {
  await page.goto(at("/workloads?namespace=default&name=reviews-v2"));
  await page.getByRole("button", { name: "Clusters" }).click();
  await page.getByRole("button", { name: "outbound|9080||ratings.default.svc.cluster.local" }).click();
  await expect(page.getByRole("region", { name: "The cluster outbound|9080||ratings" })).toContainText("connect_timeout");
  await expect(page).toHaveURL(/held=cluster/);
});

test("a page that there is not says so", async ({ page }) => {
  await page.goto(at("/nothing-here"));
  await expect(page.getByRole("heading", { name: "No such page" })).toBeVisible();
});

// Written anew by `UPDATE=1 cargo xtask console test pages`.
if (process.env.UPDATE) {
  test("the picture of the README", async ({ page }) => {
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize({ width: 1280, height: 760 });
    await page.goto(at(`/graph?select=${encodeURIComponent("app/default/reviews/v2")}`));
    await expect(page.getByRole("complementary", { name: "Details" }).getByText("a second").first()).toBeVisible();
    // A picture for people, and no test: its charts show some seconds of traffic.
    await page.waitForTimeout(8000);
    await page.screenshot({ path: "../docs/console.png" });
  });
}
