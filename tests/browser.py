"""A real browser, without a window; a test that asks for one is skipped where there is none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def open_browser(width: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A selenium driver of Chromium; no name but this machine's own leads anywhere."""
    # A driver that is not installed is not downloaded, and nobody is told of the test.
    monkeypatch.setenv("SE_OFFLINE", "true")
    monkeypatch.setenv("SE_AVOID_STATS", "true")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    for option in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = webdriver.Chrome(options=options)
    except Exception as error:  # of whichever kind a missing browser or driver is
        pytest.skip(f"no browser: {error}")
    try:
        # A window is never narrower than 500 pixels; a phone's screen is.
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()


def severe(driver: Any) -> list[str]:
    """Errors that the browser has logged since it was last asked."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def requests(driver: Any) -> list[str]:
    """What the browser has asked for since then, from whomever."""
    found = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [one["params"]["request"]["url"] for one in found if one["method"] == "Network.requestWillBeSent"]
