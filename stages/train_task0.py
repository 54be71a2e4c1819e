"""train_task0: learns the first task; from random weights alike for every strategy (Fig. 3a)."""

from derain.compute import distributed
from derain.console import run
from stages import kd_task

if __name__ == "__main__":
    run(distributed.together(lambda: kd_task.main("0")))
