// Takes the screenshots of docs/monitor.md; run by scripts/screenshots.
import { chromium } from "playwright-core";

const [url, folder] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const views = [
  { name: "light", width: 1440, height: 900, colorScheme: "light" },
  { name: "dark", width: 1440, height: 900, colorScheme: "dark", hash: "#breaker=recommendations" },
  { name: "phone", width: 390, height: 844, colorScheme: "light", isMobile: true },
];
const pages = [];
for (const { name, width, height, colorScheme, isMobile, hash } of views) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, isMobile });
  const page = await context.newPage();
  await page.goto(`${url}${hash ?? ""}`);
  pages.push([name, page]);
}
// Until the sparklines are full.
await pages[0][1].waitForTimeout(Number(process.env.SECONDS_TO_WAIT ?? 45) * 1000);
for (const [name, page] of pages) {
  await page.bringToFront();
  await page.waitForTimeout(1500);
  await page.screenshot({ path: `${folder}/monitor-${name}.png` });
}
await browser.close();
