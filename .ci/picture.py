"""Draws docs/page.png: the web page of the server at $URL after it tagged the sample morning. Run by `make picture`."""

import os
import shutil

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = chromium.new_page(viewport={"width": 1000, "height": 800})
    page.goto(os.environ["URL"])
    page.click("[data-sample=morning]")
    page.wait_for_selector("#result:not([hidden])")
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # the player shows the sound's length a moment later
    page.screenshot(path="docs/page.png", full_page=True)
    chromium.close()
