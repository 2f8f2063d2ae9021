"""Pictures of a running platform for the documentation, taken in a real Chromium as a user sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from tests.support.chromium import CHROMIUM, FLAGS

WAIT_MS = 40_000
Colours = Literal["light", "dark"]
PAGES: tuple[tuple[str, int, int, Colours], ...] = (
    ("report", 1200, 1000, "light"),
    ("report-dark", 1200, 1000, "dark"),
    ("report-phone", 390, 844, "light"),
)


def log_in(tab: Any, url: str, user: str, password: str) -> None:
    """Log in through Airflow's own form."""
    tab.goto(f"{url}/auth/login/")
    tab.fill("input[name=username]", user)
    tab.fill("input[name=password]", password)
    tab.click("button[type=submit]")
    tab.wait_for_url(lambda found: "/auth/login" not in found)


class Camera:
    """One browser tab that goes from page to page; what goes wrong is noted, and the next picture is still taken."""

    def __init__(self, tab: Any, url: str, folder: Path) -> None:
        self.tab = tab
        self.url = url
        self.folder = folder
        self.problems: list[str] = []

    def take(self, name: str, path: str, show: Callable[[Any], Any], *, whole: bool = False) -> None:
        """Go to a page, do what shows the thing, and keep a picture."""
        from playwright.sync_api import Error

        try:
            self.tab.goto(self.url + path)
            show(self.tab)
            self.tab.wait_for_load_state("networkidle")
        except Error as error:
            self.problems.append(f"{name}: {error}")
        self.tab.screenshot(path=str(self.folder / f"{name}.png"), full_page=whole)


def _graph(tab: Any) -> None:
    """The graph beside the run instead of the grid, by Airflow's own key."""
    tab.get_by_text("verify_endpoint").first.wait_for()
    tab.keyboard.press("g")
    tab.locator(".react-flow__node").first.wait_for()


def _trigger(tab: Any) -> None:
    tab.get_by_role("button", name="Trigger").first.click()
    tab.get_by_text("Run Parameters").first.wait_for()


def _checked(tab: Any) -> None:
    tab.get_by_text("What was checked").wait_for()


def take(
    url: str, user: str, password: str, folder: Path, *, report: str, train_run: str, monitor_run: str
) -> list[str]:
    """Take every picture the documentation shows into ``folder``; return what went wrong, console errors included.

    :param report: path of a monitoring report below ``url``.
    :param train_run: id of a finished run of train_and_deploy.
    :param monitor_run: id of a finished run of monitor_endpoint.
    """
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = chromium.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
        context.set_default_timeout(WAIT_MS)
        tab = context.new_page()
        log_in(tab, url, user, password)
        camera = Camera(tab, url, folder)
        tab.on("console", lambda message: camera.problems.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: camera.problems.append(str(error)))

        frame = tab.frame_locator("iframe")
        camera.take("ui-monitor", "/plugin/scones-monitor", lambda _: frame.locator(".banner").first.wait_for())
        monitor = f"/dags/monitor_endpoint/runs/{quote(monitor_run)}"
        camera.take(
            "run-tab",
            f"{monitor}/plugin/scones-report",
            lambda _: frame.frame_locator("iframe").get_by_text("What was checked").wait_for(),
        )
        camera.take(
            "extra-link",
            f"{monitor}/tasks/write_report/details",
            lambda page: page.get_by_text("Monitoring report").wait_for(),
        )
        camera.take("reject-queue", "/plugin/scones-rejects", lambda _: frame.locator(".card").first.wait_for())

        train = f"/dags/train_and_deploy/runs/{quote(train_run)}"
        camera.take("dag-run", train, lambda page: page.get_by_text("verify_endpoint").first.wait_for())
        camera.take("dag-run-graph", train, _graph)
        camera.take("trigger-form", "/dags/train_and_deploy", _trigger)
        for name, width, height, scheme in PAGES:
            tab.set_viewport_size({"width": width, "height": height})
            tab.emulate_media(color_scheme=scheme)
            camera.take(name, report, _checked)
            camera.take(f"{name}-whole", report, _checked, whole=True)
        chromium.close()
    return camera.problems
