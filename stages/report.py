"""report: the metrics and the page of a run."""

from pathlib import Path

from derain import params
from derain.console import run, say
from derain.disk import atomic, paths
from derain.evaluation import summary
from derain.report import page, results
from derain.studies import comparison, panels


def main() -> None:
    settings = params.load()
    found = results.read(settings, Path())
    recorded = comparison.read_recorded(paths.RECORDED)
    summed_up = summary.summarize(settings, found.scores, found.masks_facts, found.stored_bytes, found.machine)
    forgetting = summary.forgetting_csv(settings, found.scores)
    base = params.content()
    studied = panels.table(base, comparison.of_today(settings, base, recorded))
    html = page.build(settings, base, summed_up, found, recorded)
    # All of it is made before any of it is written.
    atomic.write_atomically(paths.FORGETTING, forgetting)
    atomic.write_atomically(paths.STUDIES, studied)
    atomic.write_atomically(paths.REPORT, html.encode())
    atomic.write_json(paths.SUMMARY, summed_up.as_json())
    say(f"wrote {paths.SUMMARY} and {paths.REPORT}; `derain results` prints the table")


if __name__ == "__main__":
    run(main)
