// Drives one page for tests/browser.rs: each line on stdin is an order in JSON, each line on stdout its answer.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const LIMIT = 60_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
let page;
let complaints = [];

const orders = {
  async open({ url, width = 1280, height = 800, dark = false, phone = false }) {
    await page?.context().close();
    complaints = [];
    // bypassCSP is off: what the policy forbids must fail here, too. evaluate() needs no eval of the page's.
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", isMobile: phone, hasTouch: phone });
    page = await context.newPage();
    page.setDefaultTimeout(LIMIT);
    page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`); });
    page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
    page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("request", (request) => { if (new URL(request.url()).origin !== new URL(url).origin) complaints.push(`request elsewhere: ${request.url()}`); });
    await page.goto(url);
  },
  async text({ selector }) { return (await page.locator(selector).allInnerTexts()).join("\n"); },
  async count({ selector }) { return page.locator(selector).count(); },
  /** Milliseconds until the text of what is selected holds this. */
  async until({ selector, text, limit = LIMIT }) {
    const start = Date.now();
    await page.locator(selector, { hasText: text }).first().waitFor({ state: "visible", timeout: limit });
    return Date.now() - start;
  },
  /** Begins to wait for a class on what is selected: for the frame that shows it. */
  async expect({ selector, name }) {
    await page.evaluate(({ selector, name }) => {
      window.expected = new Promise((resolve) => {
        const look = () => {
          if (!document.querySelector(selector)?.classList.contains(name)) return;
          observer.disconnect();
          requestAnimationFrame(() => resolve(Date.now()));
        };
        const observer = new MutationObserver(look);
        observer.observe(document.querySelector("#rows"), { subtree: true, childList: true, attributes: true });
        look();
      });
    }, { selector, name });
  },
  /** When that was, in milliseconds since 1970. */
  async expected() { return page.evaluate(() => window.expected); },
  async click({ selector }) { await page.locator(selector).first().click(); },
  async fill({ selector, text }) { await page.locator(selector).fill(text); },
  async press({ key }) { await page.keyboard.press(key); },
  async focused() { return page.evaluate(() => document.activeElement?.innerText ?? ""); },
  async title() { return page.title(); },
  async hash() { return new URL(page.url()).hash; },
  /** What the browser complained about since the page was opened. */
  async complaints() { return complaints; },
  /** Violations of WCAG 2.1 A and AA, as axe sees them. */
  async axe() {
    await page.evaluate(AXE);
    const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }));
    return found.violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`).slice(0, 3).join(" | ")}`);
  },
  /** Scrolls through all rows: how long frames took, how long the page's thread computed for each, and what is left in memory. */
  async scroll({ selector, frames = 120 }) {
    const session = await page.context().newCDPSession(page);
    // By the thread's own clock, which stands while others compute.
    await session.send("Performance.enable", { timeDomain: "threadTicks" });
    const busy = async () => {
      const { metrics } = await session.send("Performance.getMetrics");
      return metrics.find(({ name }) => name === "TaskDuration").value * 1000;
    };
    const before = await busy();
    const measured = await page.evaluate(async ({ selector, frames }) => {
      const view = document.querySelector(selector), spans = [];
      let last = performance.now();
      for (let frame = 0; frame < frames; frame++) {
        view.scrollTop = (view.scrollHeight - view.clientHeight) * frame / (frames - 1);
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        spans.push(now - last);
        last = now;
      }
      spans.sort((a, b) => a - b);
      return { median_ms: spans[frames >> 1], p95_ms: spans[Math.floor(frames * 0.95)], nodes: document.querySelectorAll("*").length };
    }, { selector, frames });
    const busy_ms = (await busy() - before) / frames;
    await session.send("HeapProfiler.collectGarbage");
    const { usedSize } = await session.send("Runtime.getHeapUsage");
    return { ...measured, busy_ms, heap_mb: usedSize / 1e6 };
  },
  async screenshot({ path }) { await page.screenshot({ path }); },
};

process.stdout.write('{"ok":"ready"}\n');
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { order, ...rest } = JSON.parse(line);
    answer = { ok: (await orders[order](rest)) ?? null };
  } catch (error) {
    // What was to be seen in its place.
    const seen = await page?.locator("body").innerText().catch(() => "");
    answer = { error: `${error.message}\nOn the page:\n${(seen ?? "").slice(0, 1500)}\n${complaints.join("\n")}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
