from contraverse.data.nearest import nearest


def test_all_names_come_back_the_likest_first() -> None:
    assert nearest("trin", ["test", "label", "train"])[0] == "train"
    assert nearest("LABEL", ["table", "label", "text"])[0] == "label"
    assert sorted(nearest("x", ["b", "a"])) == ["a", "b"]
    assert nearest("x", []) == []
