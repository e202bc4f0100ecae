"""Renders from the code: the reference pages (settings, metrics, refusals) and config/env.example.

python docs/render.py            write them
python docs/render.py --check    exit 1 if one is not what the code says
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gateway.errors import Cause, GrpcCode  # noqa: E402
from gateway.settings import Settings  # noqa: E402
from gateway.telemetry.metrics import Metrics  # noqa: E402

NOTE = "<!-- Rendered by docs/render.py; edit the code, not this page. -->\n\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def settings_page() -> str:
    rows = [
        (f"`{spec.name}`", f"`{default}`" if default else "", spec.meaning, spec.kind.accepts)
        for spec, _, default in Settings.load({}).describe()
    ]
    return (
        "# Settings\n\n"
        + NOTE
        + "All settings are environment variables. `python -m gateway settings` shows the values in"
        " force. A name that begins with `GATEWAY_` or `TEMPO_` and is not in this table ends the"
        " start, since a misspelt setting is a setting that does not hold.\n\n"
        + table(("name", "default", "meaning", "takes"), rows)
    )


def env_example() -> str:
    """Every setting that people set, as a file for systemd, Docker and shells."""
    lines = [
        "# Rendered by docs/render.py from gateway/settings.py. Every setting with its default;",
        "# take the first # away to set one. systemd (EnvironmentFile=) and docker run --env-file",
        "# read a file of this form; scalingo env-set and heroku config:set take its lines.",
    ]
    for spec, _, default in Settings.load({}).describe():
        if not spec.meaning.startswith("set by the platform"):
            lines += ["", f"# {spec.meaning} ({spec.kind.accepts})", f"#{spec.name}={default}"]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    rows = [
        (
            f"`gateway_{family.row.name}{'_total' if family.row.kind == 'counter' else ''}`",
            family.row.kind,
            ", ".join(family.row.labels),
            family.row.help,
        )
        for family in Metrics().families()
    ]
    return (
        "# Metrics\n\n"
        + NOTE
        + "`GET /metrics` has these beside the backend's own. The books balance at any quiet"
        " moment:\n\n"
        "- `received_spans` = `accepted_spans` + `rejected_spans`\n"
        "- `accepted_spans` + `recovered_spans` = `delivered_spans` + `handed_over_spans` +"
        " `dropped_spans` + `pending_spans`\n\n"
        + table(("name", "kind", "labels", "meaning"), rows)
    )


def refusals_page() -> str:
    names = {number: name for name, number in vars(GrpcCode).items() if isinstance(number, int)}
    rows = [
        (
            f"`{cause.value.reason}`",
            str(cause.value.http),
            names[cause.value.grpc],
            "yes, after the delay it names" if cause.value.retry else "no",
            cause.value.meaning,
        )
        for cause in Cause
    ]
    return (
        "# Refusals\n\n"
        + NOTE
        + "Why a whole request is not taken, and what each transport says. Over HTTP the delay is"
        " `Retry-After`, over gRPC `RetryInfo` in the status details. Every answer carries a"
        " message that says what to change. Bad spans in a good request are no refusal: they are"
        " cut out and named in `partial_success`.\n\n"
        + table(("reason", "HTTP", "gRPC", "will a retry help", "meaning"), rows)
    )


PAGES = {
    "docs/settings.md": settings_page,
    "docs/metrics.md": metrics_page,
    "docs/refusals.md": refusals_page,
    "config/env.example": env_example,
}


def main(arguments: Sequence[str]) -> int:
    stale = []
    for name, render in PAGES.items():
        path, text = ROOT / name, render()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text)
    if stale and "--check" in arguments:
        print(f"stale, run make docs: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
