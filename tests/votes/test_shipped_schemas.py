"""Every tree of the package, against the papers' tables."""

import re

import pytest

from surveyproc.votes import VoteSchema, load_schema, shipped_schemas

# questions, answers, label of the first answer, what the labels hold: from the campaigns' tables
TREES = {
    "gz2": (11, 37, "t01_smooth_or_features_a01_smooth_count", "counts"),
    "gz2-galaxy-datasets": (10, 30, "smooth-or-featured-gz2_smooth", "counts"),
    "galaxy-challenge": (5, 17, "Class1.1", "joint"),
    "galaxy-challenge-full": (11, 37, "Class1.1", "joint"),
    "decals-dr12": (10, 30, "smooth-or-featured-dr12_smooth", "counts"),
    "decals-dr5": (10, 34, "smooth-or-featured-dr5_smooth", "counts"),
    "decals-dr8": (10, 34, "smooth-or-featured-dr8_smooth", "counts"),
    "desi": (10, 34, "smooth-or-featured_smooth_fraction", "fractions"),
    "hubble": (12, 34, "smooth-or-featured-hubble_smooth", "counts"),
    "candels": (11, 32, "smooth-or-featured-candels_smooth", "counts"),
    "ukidss": (10, 30, "smooth-or-featured-ukidss_smooth", "counts"),
    "cosmic-dawn": (13, 45, "smooth-or-featured-cd_smooth", "counts"),
    "euclid": (13, 46, "smooth-or-featured-euclid_smooth", "counts"),
    "jwst": (12, 39, "smooth-or-featured-jwst_smooth", "counts"),
    "jwst-cosmos": (11, 36, "smooth-or-featured-jwst_smooth", "counts"),
    "rings": (1, 2, "ring_yes", "counts"),
}
SMOOTH, FEATURED = "smooth-or-featured_smooth", "smooth-or-featured_featured-or-disk"
# Willett et al. 2013, table 2: the answers after which each task is asked
GZ2_PARENTS = {
    "smooth-or-featured": set(),
    "disk-edge-on": {FEATURED},
    "bar": {"disk-edge-on_no"},
    "has-spiral-arms": {"disk-edge-on_no"},
    "bulge-size": {"disk-edge-on_no"},
    "something-odd": {SMOOTH, FEATURED},
    "how-rounded": {SMOOTH},
    "odd-feature": {"something-odd_yes"},
    "bulge-shape": {"disk-edge-on_yes"},
    "spiral-winding": {"has-spiral-arms_yes"},
    "spiral-arm-count": {"has-spiral-arms_yes"},
}
GZ2_ANSWERS = {
    "smooth-or-featured": "smooth featured-or-disk artifact",
    "disk-edge-on": "yes no",
    "bar": "yes no",
    "has-spiral-arms": "yes no",
    "bulge-size": "no just-noticeable obvious dominant",
    "something-odd": "yes no",
    "how-rounded": "round in-between cigar",
    "odd-feature": "ring lens-or-arc disturbed irregular other merger dust-lane",
    "bulge-shape": "round boxy no-bulge",
    "spiral-winding": "tight medium loose",
    "spiral-arm-count": "1 2 3 4 more-than-4 cant-tell",
}


def parents(schema):
    return {q.name: set(q.parents) for q in schema.questions}


def test_the_trees_are_those_of_the_campaigns():
    assert set(shipped_schemas()) == set(TREES)


@pytest.mark.parametrize("name", TREES)
def test_a_shipped_tree_is_whole(name):
    schema = load_schema(name)
    questions, answers, first_label, values = TREES[name]
    assert (schema.name, len(schema.questions), len(schema.columns)) == (name, questions, answers)
    assert len(set(schema.columns)) == answers
    assert (schema.values, schema.labels[schema.columns[0]]) == (values, first_label)
    assert list(schema.labels) == schema.columns
    assert len(set(schema.labels.values())) == answers
    assert all(p in schema.columns for q in schema.questions for p in q.parents)
    assert sorted(schema.asking_order) == list(range(questions))
    assert re.search(r"\d{4}|Galaxy Zoo", schema.source)
    assert VoteSchema.from_dict(schema.to_dict()) == schema


@pytest.mark.parametrize("name", TREES)
def test_names_in_our_tables_carry_no_campaign(name):
    for question in load_schema(name).questions:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", question.name)
        assert not re.search(r"-(gz2|dr\d+|hubble|candels|ukidss|cd|jwst|euclid)$", question.name)
        assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", answer) for answer in question.answers)


def test_galaxy_zoo_2_follows_the_paper():
    schema = load_schema("gz2")
    assert parents(schema) == GZ2_PARENTS
    assert {q.name: " ".join(q.answers) for q in schema.questions} == GZ2_ANSWERS


def test_galaxy_zoo_2_reads_the_columns_of_the_published_catalogue():
    """Tasks 1-11 in order; answers a01-a38 without a35, which was never used."""
    names = list(load_schema("gz2").labels.values())
    assert sorted({n[:3] for n in names}) == [f"t{i:02}" for i in range(1, 12)]
    found = [int(re.search(r"_a(\d\d)_", n).group(1)) for n in names]
    assert sorted(found) == [i for i in range(1, 39) if i != 35]
    assert all(n.endswith("_count") for n in names)


@pytest.mark.parametrize("name", ["gz2-galaxy-datasets", "ukidss"])
def test_the_trees_made_from_galaxy_zoo_2_lack_the_odd_feature_only(name):
    expected = {q: p for q, p in GZ2_PARENTS.items() if q != "odd-feature"}
    assert parents(load_schema(name)) == expected


def test_the_galaxy_challenge_asks_every_galaxy_whether_it_is_odd():
    schema = load_schema("galaxy-challenge-full")
    assert parents(schema) == GZ2_PARENTS | {"something-odd": set()}
    answers = [3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6]
    assert list(schema.labels.values()) == [
        f"Class{q}.{a}" for q, n in enumerate(answers, start=1) for a in range(1, n + 1)
    ]


def test_the_short_challenge_tree_is_a_part_of_the_full_one():
    short, full = load_schema("galaxy-challenge"), load_schema("galaxy-challenge-full")
    assert [q for q in full.questions if q in short.questions] == list(short.questions)
    assert short.labels.items() <= full.labels.items()


@pytest.mark.parametrize("name", sorted(set(TREES) - {"galaxy-challenge", "rings"}))
def test_arms_are_counted_on_spirals_and_discs_looked_at_face_on(name):
    tree = parents(load_schema(name))
    assert tree["spiral-winding"] == tree["spiral-arm-count"] == {"has-spiral-arms_yes"}
    assert tree["has-spiral-arms"] == tree["bar"] == tree["bulge-size"] == {"disk-edge-on_no"}


@pytest.mark.parametrize(
    "name", [n for n in TREES if any(q.name == "merging" for q in load_schema(n).questions)]
)
def test_mergers_are_asked_of_all_galaxies_but_artifacts(name):
    schema = load_schema(name)
    featured = f"smooth-or-featured_{schema.questions[0].answers[1]}"
    assert parents(schema)["merging"] == {SMOOTH, featured}


def test_clumpy_galaxies_leave_the_disc_branch_in_the_deep_surveys():
    for name in ("hubble", "candels"):
        tree = parents(load_schema(name))
        assert tree["clumpy-appearance"] == {"smooth-or-featured_features"}
        assert tree["disk-edge-on"] == {"clumpy-appearance_no"}


def test_problems_of_the_image_have_their_own_branch():
    for name in ("euclid", "cosmic-dawn"):
        tree = parents(load_schema(name))
        assert (tree["problem"], tree["artifact"]) == ({"smooth-or-featured_problem"}, {"problem_artifact"})
    euclid, dawn = load_schema("euclid"), load_schema("cosmic-dawn")
    assert set(euclid.columns) - set(dawn.columns) == {"artifact_ghost"}
