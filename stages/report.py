"""report: the metrics and the page of a run."""

from pathlib import Path

from derain import params as parameters
from derain.console import run, say
from derain.disk import atomic, paths
from derain.evaluation import summary
from derain.report import page, results
from derain.studies import panels
from derain.studies.recorded import read_recorded


def main() -> None:
    params = parameters.load()
    left = results.read(params, Path())
    recorded = read_recorded(paths.RECORDED)
    summed_up = summary.summarize(params, left.scores, left.masks_facts, left.stored_bytes, left.machine)
    forgetting = summary.forgetting_csv(summary.after_each_task(params, left.scores))
    studied = panels.table(params, recorded.of_today(params))
    html = page.build(params, summed_up, left, recorded)
    # All of it is made before any of it is written.
    atomic.write_atomically(paths.FORGETTING, forgetting)
    atomic.write_atomically(paths.STUDIES, studied)
    atomic.write_atomically(paths.REPORT, html.encode())
    atomic.write_json(paths.SUMMARY, summed_up.as_json())
    say(f"wrote {paths.SUMMARY} and {paths.REPORT}; `derain results` prints the table")


if __name__ == "__main__":
    run(main)
