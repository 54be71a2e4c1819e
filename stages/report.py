"""report: the metrics and the page of a run."""

from pathlib import Path

from derain import params, paths
from derain.console import run, say
from derain.report import comparison, page, results, studies, summary


def main() -> None:
    settings = params.load()
    found = results.read(settings, Path())
    recorded = comparison.read_recorded(paths.RECORDED)
    summed_up = summary.summarize(settings, found.scores, found.masks_facts, found.stored_bytes, found.machine)
    forgetting = summary.forgetting_csv(settings, found.scores)
    base = params.content()
    studied = studies.table(base, comparison.of_today(settings, base, recorded))
    html = page.build(settings, base, summed_up, found, recorded)
    # All of it is made before any of it is written.
    paths.write_atomically(paths.FORGETTING, forgetting)
    paths.write_atomically(paths.STUDIES, studied)
    paths.write_atomically(paths.REPORT, html.encode())
    paths.write_json(paths.SUMMARY, summed_up.as_json())
    say(f"wrote {paths.SUMMARY} and {paths.REPORT}; `derain results` prints the table")


if __name__ == "__main__":
    run(main)
