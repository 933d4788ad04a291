//! One event after the other.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::signal::log::follow;

#[test]
fn it_begins_at_the_end_with_the_line_that_is_being_written() {
    let mut stage = Stage::empty();
    stage.write("old\nold\nbeg");
    assert_eq!(stage.turn(), None);
    stage.write("un\nnew\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "begun new");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "");
    assert_eq!(stage.tail, Tail { lines: 2, ..Tail::default() });
}

#[test]
fn what_comes_later_is_read_from_its_beginning() {
    let mut stage = Stage::empty();
    let problem = stage.turn().unwrap();
    assert!(problem.starts_with("there is no log at "), "{problem}");
    stage.write("one\ntwo\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "one two");
}

#[test]
fn a_file_that_is_moved_away_is_read_to_its_end_before_the_new_one() {
    let mut stage = Stage::new();
    stage.write("1\n2\n");
    assert_eq!(stage.turn(), None);
    stage.write("3\n");
    stage.rename("app.log.1");
    append(&stage.beside("app.log.1"), b"4\nha");
    stage.write("6\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 2 3 4 6");
    // Its writer has not heard of it yet.
    append(&stage.beside("app.log.1"), b"lf\n5\n");
    stage.write("7\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "half 5 7");
    assert_eq!((stage.tail.rotations, stage.tail.dropped_bytes, stage.tail.lag_bytes), (1, 0, 0));
}

#[test]
fn until_the_new_file_comes_the_old_one_is_read_on() {
    let mut stage = Stage::new();
    stage.rename("app.log.1");
    append(&stage.beside("app.log.1"), b"1\n");
    assert!(stage.turn().is_some(), "there is none at the path");
    assert_eq!(stage.told(), "1");
    append(&stage.beside("app.log.1"), b"2\n");
    stage.write("3\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "2 3");
}

#[test]
fn a_moved_file_is_closed_when_it_was_quiet_and_its_last_line_counts_as_it_is() {
    let mut stage = Stage::new();
    stage.write("whole\nhalf");
    stage.rename("app.log.1");
    stage.write("new\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "whole new");
    follow::testing::impatient(stage.follower());
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "half");
    append(&stage.beside("app.log.1"), b" too late\n");
    stage.write("newer\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "newer");
}

#[test]
fn files_that_came_and_went_between_two_turns_are_found_beside_it() {
    for names in [["app.log.1", "app.log.2", "app.log.3"], ["app-3.log", "app-2.log", "app-1.log"]] {
        let mut stage = Stage::empty();
        append(&stage.beside("app.log.9"), b"from before\n");
        append(&stage.beside("app-errors.log"), b"another log\n");
        stage.write("0\n");
        assert_eq!(stage.turn(), None);
        stage.write("1\n");
        stage.rename(names[2]);
        stage.write("2\n");
        stage.rename(names[1]);
        stage.write("3\n");
        stage.rename(names[0]);
        stage.write("4\n");
        append(&stage.beside("application.log.1"), b"another log\n");
        assert_eq!(stage.turn(), None);
        // Those in between may be of the same moment, and come in any order.
        let mut told: Vec<String> = stage.told().split(' ').map(str::to_owned).collect();
        assert_eq!((told.remove(0), told.pop().unwrap()), ("1".to_owned(), "4".to_owned()));
        told.sort();
        assert_eq!(told, ["2", "3"]);
        assert_eq!((stage.tail.rotations, stage.tail.dropped_bytes), (3, 0));
        // Renamed again: nothing new.
        fs::rename(stage.beside(names[1]), stage.beside("app.log.7")).unwrap();
        stage.rename("app.log.4");
        stage.write("5\n");
        assert_eq!(stage.turn(), None);
        assert_eq!(stage.told(), "5");
    }
}

#[test]
fn a_file_that_was_copied_and_cut_is_read_on_in_its_copy() {
    let mut stage = Stage::new();
    stage.write("1\n2\n");
    assert_eq!(stage.turn(), None);
    stage.write("3\n");
    stage.copy("app.log.1");
    stage.cut();
    stage.write("4\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 2 3 4");
    assert_eq!((stage.tail.truncations, stage.tail.dropped_bytes), (1, 0));
    // Longer than what was read, at once.
    stage.write("5\n");
    fs::rename(stage.beside("app.log.1"), stage.beside("app.log.2")).unwrap();
    stage.copy("app.log.1");
    stage.cut();
    stage.write("6\n7\n8\n9\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "5 6 7 8 9");
    assert_eq!((stage.tail.truncations, stage.tail.rotations, stage.tail.dropped_bytes), (2, 0, 0));
}

#[test]
fn a_file_that_was_only_cut_is_begun_anew_and_what_was_seen_of_the_rest_is_counted() {
    let mut stage = Stage::new();
    stage.write("1\nhalf");
    assert_eq!(stage.turn(), None);
    stage.cut();
    stage.write("2\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 2");
    assert_eq!((stage.tail.truncations, stage.tail.dropped_bytes), (1, 4));
}

#[test]
fn a_file_that_was_deleted_is_read_to_its_end_and_its_inode_is_no_proof() {
    let mut stage = Stage::new();
    stage.write("1\n");
    assert_eq!(stage.turn(), None);
    stage.write("2\n");
    fs::remove_file(&stage.path).unwrap();
    stage.write("3\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 2 3");
    // While nobody holds it, the next file may get its inode; or the same one is cut, which looks alike.
    for _ in 0..8 {
        stage.restart();
        fs::remove_file(&stage.path).unwrap();
        stage.write("other\nlines\n");
        assert_eq!(stage.turn(), None);
        assert_eq!(stage.told(), "other lines");
        stage.restart();
        stage.cut();
        stage.write("4\n5\n");
        assert_eq!(stage.turn(), None);
        assert_eq!(stage.told(), "4 5");
    }
}

#[test]
fn a_restart_goes_on_where_the_last_life_left_off() {
    let mut stage = Stage::new();
    stage.write("1\n2");
    assert_eq!(stage.turn(), None);
    stage.restart();
    stage.write("2\n3\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 22 3");
    // Moved away and replaced twice meanwhile.
    stage.restart();
    stage.write("4\n");
    stage.rename("app.log.2");
    stage.write("5\n");
    stage.rename("app.log.1");
    stage.write("6\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "4 5 6");
    // A file that was moved away is still read on.
    stage.restart();
    append(&stage.beside("app.log.2"), b"late\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "late");
    assert_eq!(stage.tail.dropped_bytes, 0);
}

#[test]
fn what_was_left_too_long_ago_is_left_out_and_counted() {
    let mut stage = Stage::new();
    stage.write("1\n");
    assert_eq!(stage.turn(), None);
    stage.restart();
    follow::testing::age(stage.directory.path(), 16 * 60);
    stage.write("4 bytes\n");
    stage.rename("app.log.1");
    stage.write("more\nhalf");
    assert_eq!(stage.turn(), None);
    stage.write(" a line\nnew\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 half a line new");
    assert_eq!(stage.tail.dropped_bytes, 8 + 5 + 4, "the line that was half is in the count, and read after all");
    // Younger ones are news.
    stage.restart();
    follow::testing::age(stage.directory.path(), 14 * 60);
    stage.write("news\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "news");
}

#[test]
fn a_file_that_was_there_before_is_not_read_when_it_takes_the_place_during_an_absence() {
    let mut stage = Stage::new();
    stage.write("1\n");
    assert_eq!(stage.turn(), None);
    append(&stage.beside("elsewhere"), b"old lines\n");
    stage.restart();
    // The file is older than the last reading says.
    follow::testing::age(stage.directory.path(), -60);
    fs::remove_file(&stage.path).unwrap();
    fs::rename(stage.beside("elsewhere"), &stage.path).unwrap();
    assert_eq!(stage.turn(), None);
    stage.write("2\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 2");
    assert_eq!(stage.tail.dropped_bytes, 10);
}

#[test]
fn a_checkpoint_that_cannot_be_used_is_no_obstacle() {
    let mut stage = Stage::new();
    stage.write("1\n");
    assert_eq!(stage.turn(), None);
    stage.restart();
    fs::write(stage.directory.path().join("tail/app.json"), "rubbish").unwrap();
    stage.write("2\n");
    assert_eq!(stage.turn(), None);
    stage.write("3\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 3", "from the end");
    // Another log under the signal's name.
    stage.restart();
    stage.path = stage.beside("other.log");
    stage.write("before\n");
    assert_eq!(stage.turn(), None);
    stage.write("4\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "4");
}

#[test]
fn long_lines_are_looked_at_up_to_a_limit() {
    let mut stage = Stage::new();
    let long = "x".repeat(300 * 1024);
    stage.write(&long);
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told().len(), lines::LONGEST, "it does not wait for its end");
    stage.restart();
    stage.write(&format!("{long}\nnext\n"));
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "next");
    assert_eq!(stage.tail.dropped_bytes, 600 * 1024 - 64 * 1024);
    assert_eq!(stage.tail.lines, 2);
    // One that is just short enough waits.
    stage.write(&"y".repeat(lines::LONGEST));
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "");
    stage.write("\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told().len(), lines::LONGEST);
}

#[test]
fn a_turn_reads_so_much_and_the_rest_is_lag() {
    let mut stage = Stage::new();
    let line = format!("{}\n", "z".repeat(1023));
    stage.write(&line.repeat(1024));
    stage.rename("app.log.1");
    stage.write("new\n");
    assert_eq!(stage.turn_within(1), None);
    let first = stage.told.0.len();
    assert!(first > 0 && first < 1024, "{first}");
    assert_eq!(stage.tail.lag_bytes, (1024 - u64::try_from(first).unwrap()) * 1024 + 4);
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told.0.len(), 1025);
    assert_eq!(stage.told.0.last().unwrap(), b"new", "the new file comes after the old one");
    assert_eq!(stage.tail.lag_bytes, 0);
}

#[test]
fn what_is_not_a_file_is_not_waited_for() {
    let mut stage = Stage::empty();
    fs::create_dir(&stage.path).unwrap();
    assert!(stage.turn().unwrap().ends_with("it is not a file"));
    fs::remove_dir(&stage.path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&stage.path).status().unwrap();
    assert!(made.success());
    assert!(stage.turn().unwrap().ends_with("it is not a file"));
}

#[test]
fn a_log_that_may_not_be_read_is_said_so() {
    if rustix::process::geteuid().is_root() {
        // Root may read everything.
        let error = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let sentence = follow::sentence(Path::new("/var/log/app.log"), &error);
        assert_eq!(sentence, "the log /var/log/app.log may not be read: give rollbackd's user the right to");
        return;
    }
    let mut stage = Stage::empty();
    stage.write("old\n");
    fs::set_permissions(&stage.path, fs::Permissions::from_mode(0o000)).unwrap();
    assert!(stage.turn().unwrap().contains("may not be read"));
    fs::set_permissions(&stage.path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "");
}

#[test]
fn a_copy_that_was_read_after_a_restart_is_not_found_again() {
    let mut stage = Stage::new();
    stage.write("1\n");
    assert_eq!(stage.turn(), None);
    stage.restart();
    stage.write("2\n");
    stage.copy("app.log.1");
    // Not freed, so that the next file cannot have its inode.
    let held = File::open(&stage.path).unwrap();
    fs::remove_file(&stage.path).unwrap();
    assert!(stage.turn().is_some(), "there is none at the path");
    stage.write("3\n");
    assert_eq!(stage.turn(), None);
    assert_eq!(stage.told(), "1 2 3");
    drop(held);
}
