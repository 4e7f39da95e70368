"""Planning, which is pure: order, shards, digests, and leaving patches out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bigearthnet.archive.records import Patch, Source
from bigearthnet.bands import S2_GROUPS
from bigearthnet.errors import SourceError
from bigearthnet.store.layout import Layout
from converter.plan import Plan, leave_out, plan_store

SPLITS = ("train", "validation", "test")


def make_layout(shard_size: int = 4, **changes: Any) -> Layout:
    return replace(Layout("v1", S2_GROUPS, "lz4", shard_size), **changes)


def make_patch(number: int, split: str | None = "train", *, recommended: bool = True, folder: str = "") -> Patch:
    name = f"S2A_MSIL2A_20170613T101031_{number // 91}_{number % 91}"
    return Patch(Source(name, s2=folder + name), split=split, recommended=recommended and split is not None)


PATCHES = st.lists(
    st.tuples(st.integers(0, 8_000), st.sampled_from([*SPLITS, None]), st.booleans()),
    min_size=1,
    max_size=60,
    unique_by=lambda drawn: drawn[0],
).map(lambda drawn: [make_patch(number, split, recommended=good) for number, split, good in drawn])
SHARD_SIZES = st.integers(1, 9)


def part_of(patch: Patch) -> int:
    return SPLITS.index(patch.split) if patch.recommended and patch.split else 3


def content_of(plan: Plan) -> list[tuple[Any, ...]]:
    return [(task.sources, task.n_train) for task in plan.tasks]


@given(PATCHES, SHARD_SIZES)
def test_every_patch_is_planned_once_in_shards_that_are_full_but_for_the_last(
    patches: list[Patch], shard_size: int
) -> None:
    plan = plan_store(patches, make_layout(shard_size))
    assert sorted(map(repr, plan.patches)) == sorted(map(repr, patches))
    sizes = [len(task.sources) for task in plan.tasks]
    assert sum(sizes) == plan.n_patches == len(patches)
    assert all(size == shard_size for size in sizes[:-1])
    assert 1 <= sizes[-1] <= shard_size
    assert len(sizes) == plan.n_shards
    assert [task.shard for task in plan.tasks] == list(range(plan.n_shards))
    assert [source for task in plan.tasks for source in task.sources] == [patch.source for patch in plan.patches]


@given(PATCHES, SHARD_SIZES)
def test_splits_are_contiguous_and_in_order(patches: list[Patch], shard_size: int) -> None:
    plan = plan_store(patches, make_layout(shard_size))
    parts = [part_of(patch) for patch in plan.patches]
    assert parts == sorted(parts)
    for number, split in enumerate([*SPLITS, "other"]):
        assert plan.split_counts[split] == parts.count(number)
    rows = [(row, task) for task in plan.tasks for row in range(len(task.sources))]
    assert [row < task.n_train for row, task in rows] == [part == 0 for part in parts]


@given(PATCHES, SHARD_SIZES, st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_of_its_input(patches: list[Patch], shard_size: int, random: Any) -> None:
    shuffled = patches.copy()
    random.shuffle(shuffled)
    one, other = (plan_store(order, make_layout(shard_size)) for order in (patches, shuffled))
    assert one == other
    assert one.digest == other.digest


@given(PATCHES, PATCHES)
def test_the_order_of_two_patches_does_not_depend_on_the_others(one: list[Patch], other: list[Patch]) -> None:
    """So a subset of the archive is trained in the order of the whole."""
    known = {patch.patch_id for patch in one}
    both = plan_store([*one, *(patch for patch in other if patch.patch_id not in known)], make_layout())
    assert [patch for patch in both.patches if patch.patch_id in known] == list(plan_store(one, make_layout()).patches)


PINNED = [
    *("0_3", "0_0", "0_6", "0_7", "0_4", "0_1"),
    *("0_2", "0_5", "0_8", "0_21", "0_20", "0_22"),
]


def test_the_order_is_pinned() -> None:
    """A store that is converted again must come out the same in every later version."""
    patches = [make_patch(number, SPLITS[number % 3]) for number in range(9)]
    patches += [make_patch(number, "train", recommended=False) for number in (20, 21)] + [make_patch(22, None)]
    plan = plan_store(patches, make_layout())
    order = [patch.patch_id.removeprefix("S2A_MSIL2A_20170613T101031_") for patch in plan.patches]
    assert order == PINNED
    for part in range(4):
        names = [patch.patch_id for patch in plan.patches if part_of(patch) == part]
        assert names == sorted(names, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())


@pytest.mark.parametrize("n_patches", [0, 2])
def test_no_patch_and_one_patch_twice_are_refused(n_patches: int) -> None:
    with pytest.raises(SourceError, match="no patches to convert" if not n_patches else "found 2 patches of 1 names"):
        plan_store([make_patch(1)] * n_patches, make_layout())


# -- Digests ---------------------------------------------------------------------------------------------------------


@given(PATCHES, PATCHES, SHARD_SIZES, SHARD_SIZES)
def test_digests_differ_if_and_only_if_the_shards_do(
    one: list[Patch], other: list[Patch], one_size: int, other_size: int
) -> None:
    plans = [plan_store(one, make_layout(one_size)), plan_store([*one, *other][: len(one)], make_layout(other_size))]
    seen: dict[str, Any] = {}
    for plan in plans:
        assert len({task.digest for task in plan.tasks}) == plan.n_shards
        for task in plan.tasks:
            content = (plan.layout, task.sources, task.n_train)
            assert seen.setdefault(task.digest, content) == content
    contents = [
        content for plan in plans for content in {repr((plan.layout, t.sources, t.n_train)) for t in plan.tasks}
    ]
    assert len(set(contents)) == len(seen)
    assert (plans[0].digest == plans[1].digest) == (
        (plans[0].layout, content_of(plans[0])) == (plans[1].layout, content_of(plans[1]))
    )


@pytest.mark.parametrize(
    "change",
    [
        {"codec": "zstd"},
        {"shard_size": 5},
        {"groups": S2_GROUPS[:2]},
        {"groups": (replace(S2_GROUPS[0], bands=("B04", "B03")), *S2_GROUPS[1:])},
    ],
    ids=str,
)
def test_every_option_that_decides_the_bytes_changes_every_digest(change: dict[str, Any]) -> None:
    patches = [make_patch(number) for number in range(8)]
    before, after = plan_store(patches, make_layout()), plan_store(patches, make_layout(**change))
    assert not {task.digest for task in before.tasks} & {task.digest for task in after.tasks}


def test_what_does_not_decide_the_bytes_changes_no_digest() -> None:
    patches = [make_patch(number) for number in range(8)]
    renamed = [replace(patch, country="Elsewhere", season="Monsoon") for patch in patches]
    assert plan_store(patches, make_layout()).digest == plan_store(renamed, make_layout()).digest


def test_a_patch_that_becomes_a_training_patch_changes_the_digest_of_its_shard_alone() -> None:
    """Its pixels stay where they are, but count in the statistics."""
    train = [make_patch(number) for number in range(6)]
    rest = [make_patch(number, "validation") for number in range(6, 12)]
    before = plan_store([*train, *rest], make_layout(4))
    first = before.patches[6]
    changed = [replace(patch, split="train") if patch == first else patch for patch in (*train, *rest)]
    after = plan_store(changed, make_layout(4))
    assert [patch.patch_id for patch in after.patches[7:]] == [patch.patch_id for patch in before.patches[7:]]
    assert after.tasks[2].digest == before.tasks[2].digest
    assert after.tasks[1].digest != before.tasks[1].digest


# -- Leaving patches out ---------------------------------------------------------------------------------------------


@given(PATCHES, SHARD_SIZES)
def test_leaving_nothing_out_changes_nothing(patches: list[Patch], shard_size: int) -> None:
    plan = plan_store(patches, make_layout(shard_size))
    assert leave_out(plan, set()) == plan
    assert leave_out(plan, {"S2A_MSIL2A_20990101T000000_0_0"}) == plan


@given(PATCHES, SHARD_SIZES, st.data())
def test_leaving_patches_out_keeps_rows_dense_and_splits_contiguous_and_moves_few(
    patches: list[Patch], shard_size: int, data: st.DataObject
) -> None:
    plan = plan_store(patches, make_layout(shard_size))
    names = [patch.patch_id for patch in plan.patches]
    gone = data.draw(st.sets(st.sampled_from(names), max_size=5))
    assume(len(gone) < len(names))
    left = leave_out(plan, gone)
    assert sorted(patch.patch_id for patch in left.patches) == sorted(set(names) - gone)
    parts = [part_of(patch) for patch in left.patches]
    assert parts == sorted(parts)
    assert left.layout == plan.layout
    for number, split in enumerate([*SPLITS, "other"]):
        assert left.split_counts[split] == parts.count(number)
    row_before = {name: row for row, name in enumerate(names)}
    moved = [patch for row, patch in enumerate(left.patches) if row_before[patch.patch_id] != row]
    assert len(moved) <= 4 * len(gone)
    changed = sum(before != after for before, after in zip(content_of(plan), content_of(left), strict=False))
    assert changed <= 2 * (len(moved) + len(gone)) + 1
    again = leave_out(plan, gone)
    assert again == left


def test_leaving_one_of_many_out_changes_few_shards() -> None:
    plan = plan_store([make_patch(number, SPLITS[number % 3]) for number in range(3_000)], make_layout(100))
    left = leave_out(plan, {plan.patches[50].patch_id})
    kept = {task.digest for task in plan.tasks} & {task.digest for task in left.tasks}
    assert len(kept) == plan.n_shards - 4  # the one with the gap, and the ends of the three splits


def test_leaving_everything_out_is_refused() -> None:
    plan = plan_store([make_patch(1), make_patch(2)], make_layout())
    with pytest.raises(SourceError, match="every patch of the archive is bad"):
        leave_out(plan, {patch.patch_id for patch in plan.patches})


# -- Projections -----------------------------------------------------------------------------------------------------


@given(PATCHES, SHARD_SIZES)
def test_bytes_follow_from_the_published_sizes(patches: list[Patch], shard_size: int) -> None:
    plan = plan_store(patches, make_layout(shard_size, codec="none"))
    patch_bytes = 2 * (4 * 120**2 + 6 * 60**2 + 2 * 20**2)
    assert plan.pixel_bytes == patch_bytes * len(patches)
    assert plan.projected_bytes == (patch_bytes + 3 * 20) * len(patches)
    assert plan.worker_bytes > min(shard_size, len(patches)) * patch_bytes


def test_the_whole_archive_is_projected_within_reason() -> None:
    layout = make_layout(256)
    assert layout.patch_bytes * 590_326 == 94_452_160_000
    plan = plan_store([make_patch(number) for number in range(8_281)], layout)
    assert 1.2 < plan.pixel_bytes / plan.projected_bytes < 1.5
    assert plan.worker_bytes < 512 * 2**20


def test_a_plan_is_told_as_json() -> None:
    plan = plan_store([make_patch(number, SPLITS[number % 2]) for number in range(9)], make_layout())
    told = plan.to_json()
    assert (told["n_patches"], told["n_shards"], told["shard_size"], told["codec"]) == (9, 3, 4, "lz4")
    assert told["splits"] == {"train": 5, "validation": 4}
    assert told["arrays"]["s2_60m"] == ["B01", "B09"]
