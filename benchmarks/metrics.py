"""Are our metrics faster than scikit-learn's? Run: python -m benchmarks.metrics.

Prints the processor's seconds of each over made-up predictions of a test split, the best of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sklearn import metrics as peer

from trainer.score.metrics import area_under_roc, average_precision, measure_decisions, tune_thresholds

N_PATCHES, N_CLASSES, N_ROUNDS = 120_000, 19, 5


def main() -> None:
    """Run the benchmark."""
    random = np.random.default_rng(0)
    truth = random.random((N_PATCHES, N_CLASSES)) < np.linspace(0.005, 0.4, N_CLASSES)
    truth[:, -1] |= ~truth.any(1)  # a patch without label has no recall, of which scikit-learn would warn
    scores = np.clip(random.normal(0.3, 0.15, truth.shape) + 0.25 * truth, 0, 1).astype(np.float32)
    true, predicted = truth.astype(np.int8), (scores >= 0.5).astype(np.int8)
    few = slice(N_PATCHES // 10)  # of scikit-learn's mean over patches, which takes half a minute for all

    def decide() -> None:
        for average in ("macro", "micro", "samples"):
            for beta in (1, 2):
                peer.precision_recall_fscore_support(true, predicted, average=average, beta=beta, zero_division=0)

    def tune() -> None:
        for place in range(N_CLASSES):
            peer.precision_recall_curve(true[:, place], scores[:, place])

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "average precision, each class": (
            lambda: average_precision(truth, scores),
            lambda: peer.average_precision_score(true, scores, average=None),
        ),
        "average precision, a tenth of the patches": (
            lambda: average_precision(truth[few].T, scores[few].T),
            lambda: peer.average_precision_score(true[few], scores[few], average="samples"),
        ),
        "AUROC, each class": (
            lambda: area_under_roc(truth, scores),
            lambda: peer.roc_auc_score(true, scores, average=None),
        ),
        "thresholds by F1, each class": (lambda: tune_thresholds(truth, scores), tune),
        "F1, F2, precision, recall by three means": (lambda: measure_decisions(truth, predicted), decide),
    }
    print(f"{N_PATCHES:,} patches, {N_CLASSES} classes{'ours':>20}  scikit-learn")
    for name, pair in pairs.items():
        ours, theirs = (min(clock(work) for _ in range(N_ROUNDS)) for work in pair)
        print(f"{name:44} {ours:6.3f} s  {theirs:6.3f} s", flush=True)


def clock(work: Callable[[], object]) -> float:
    """Return the processor's seconds that something takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
