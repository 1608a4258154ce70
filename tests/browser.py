"""A real headless Chromium, for pages that people read: what they ask the network for, how well they are read, and by whom."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Every element with a text of its own: its colour against the nearest background that is not transparent (WCAG 2.2, 1.4.3).
CONTRASTS = """
const channel = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map(part => channel(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const opaque = colour => !/rgba\\(.*, 0\\)/.test(colour);
const under = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (opaque(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const told = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  if (!own || ["TITLE", "DESC", "title", "desc"].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const colour = element.closest("svg") ? style.fill : style.color;
  const [a, b] = [light(colour), light(under(element))].sort((x, y) => y - x);
  told.push([(a + 0.05) / (b + 0.05), element.tagName, element.textContent.trim().slice(0, 40)]);
}
return told;
"""


class Browser:
    """A real headless Chromium, driven by selenium; it keeps what it logged and asked the network for."""

    def __init__(self, chromium: str, driver: str) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(command, arguments)
        return answer

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def media(self, scheme: str, kind: str = "screen") -> None:
        self.do("Emulation.setEmulatedMedia", media=kind, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, path: Path) -> None:
        self.driver.get(path.as_uri())

    def contrasts(self) -> list[Any]:
        """Of every text: its contrast, its element and how it begins."""
        told: list[Any] = self.run(CONTRASTS)
        return told

    def light(self) -> bool:
        """Whether the page's paper is."""
        colour = self.run("return getComputedStyle(document.documentElement).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)) > 600

    def named(self) -> list[tuple[str, str]]:
        """Role and name of all that the accessibility tree has."""
        nodes = self.do("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    @contextmanager
    def phone(self) -> Iterator[None]:
        """A screen of 320 px."""
        self.do("Emulation.setDeviceMetricsOverride", width=320, height=700, deviceScaleFactor=1, mobile=False)
        try:
            yield
        finally:
            self.do("Emulation.clearDeviceMetricsOverride")

    def complaints(self) -> list[Any]:
        """What the console shows."""
        return list(self.driver.get_log("browser"))  # type: ignore[no-untyped-call]

    def requests(self) -> list[str]:
        """URLs asked for since the last look."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # type: ignore[no-untyped-call]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Skips the test where there is none."""
    pytest.importorskip("selenium", reason="selenium is not installed: pip install 'lmeraser[dev]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its chromedriver on PATH: the page is looked at nowhere")
    made = Browser(chromium, driver)
    try:
        yield made
    finally:
        made.driver.quit()
