//! Every golden case of the ten systems as a rebuild: while events arrive, from nothing, back and forward, and killed at
//! every commit. Each time readers see the golden rows, in all columns.

mod cases;
mod changed;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use cases::Case;

use super::world::{Daemon, Dice, World};

/// So many projections in one world: three generations of each are folded at a time, and every one is a consumer.
const TOGETHER: usize = 20;

/// So slowly that every event is a batch of its own.
const ONE_BY_ONE: &[&str] = &["--detach", "--max-rate", "15"];

/// Starts a daemon. Of a group of its own, it does not wait until the group has noticed that its last member was killed.
fn start(world: &World, failpoint: &str, sabotage: &str) -> Daemon {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let group = format!("{}-{}", world.name, NEXT.fetch_add(1, Ordering::SeqCst));
    let settings = [
        ("PROJECTOR__KAFKA__GROUP_PREFIX", group.as_str()),
        ("PROJECTOR__FOLD__LANES", "1"),
        // Rows are read as of another time than now.
        ("PROJECTOR__FOLD__SWEEP_S", "3600"),
        // It is the failpoint that kills, and no event: none is to be parked for it.
        ("PROJECTOR__FOLD__POISON_ATTEMPTS", "1000"),
        ("PROJECTOR_FAILPOINT", failpoint),
        ("PROJECTOR_SABOTAGE", sabotage),
    ];
    world.start_applied(&settings)
}

/// Runs a verb for each of the cases, several at a time. The definitions are those of the catalog.
fn say(world: &World, cases: &[&Case], verb: &str, more: &[&str], then: impl Fn(&Case) + Sync) -> Result<(), String> {
    const AT_A_TIME: usize = 4;
    let next = AtomicUsize::new(0);
    let in_turn = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
            let mut command = world.command(&[verb, &case.projection]);
            let output = command.args(more).env("PROJECTOR__PROJECTIONS", "nowhere").output().unwrap();
            if !output.status.success() {
                return Err(format!("{verb} {}: {output:?}", case.name()));
            }
            then(case);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [(); AT_A_TIME].map(|()| scope.spawn(in_turn));
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })
}

/// Cases whose live generation is another one.
fn not_live(world: &World, cases: &[&Case], number: i32) -> Result<Vec<String>, String> {
    let sql = format!("SELECT projection FROM projector.generations WHERE state = 'live' AND number = {number}");
    let rows = world.try_query(&sql).map_err(|error| error.to_string())?;
    let live = |case: &&&Case| rows.contains(&format!("{{\"projection\":\"{}\"}}", case.projection));
    Ok(cases.iter().filter(|case| !live(case)).map(|case| case.name()).collect())
}

/// Waits until a generation of each case is live. The views show it then, and no other.
fn until_shown(world: &World, cases: &[&Case], number: i32) -> Result<(), String> {
    world.try_wait("the generations to be live", || match not_live(world, cases, number)? {
        missing if missing.is_empty() => Ok(()),
        missing => Err(format!("generation {number} is not, of {missing:?}")),
    })?;
    let shown = cases::shown(world)?;
    let other = cases.iter().find(|case| !shown[&case.projection].iter().eq([&number]));
    other.map_or(Ok(()), |case| Err(format!("{} shows {:?}, not {number}", case.name(), shown[&case.projection])))
}

/// Waits until the live generations have applied the first so many events of each case, and what follows has followed.
fn until_applied(world: &World, cases: &[&Case], events: impl Fn(&Case) -> usize) -> Result<(), String> {
    let offsets = "SELECT g.projection, g.number, sum(c.next_offset)::int AS n FROM projector.checkpoints c
        JOIN projector.generations g ON g.id = c.generation_id AND g.state = 'live' GROUP BY 1, 2";
    world.try_wait("all to be applied", || {
        let rows = world.try_query(offsets).map_err(|error| error.to_string())?;
        let rows: Vec<serde_json::Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        let mut marks = vec!["SELECT '' AS of WHERE false".to_string()];
        for case in cases {
            let row = rows.iter().find(|row| row["projection"] == case.projection.as_str());
            let applied = row.map_or(0, |row| row["n"].as_u64().unwrap_or(0));
            if applied != events(case) as u64 {
                return Err(format!("{} has applied {applied} events of {}", case.name(), events(case)));
            }
            let schema = row.map(|row| format!("{}@{}", case.projection, row["number"]));
            let schema = schema.filter(|_| case.has_joins());
            marks.extend(schema.map(|schema| format!("SELECT '{schema}' AS of FROM \"{schema}\".projector_marks")));
        }
        match world.try_query(&marks.join(" UNION ALL ")) {
            Ok(marks) if marks.is_empty() => Ok(()),
            other => Err(format!("not followed yet: {other:?}")),
        }
    })
}

/// That readers see the golden rows now.
fn golden(world: &World, cases: &[&Case], when: &str) -> Result<(), String> {
    let wrong = cases::differences(world, cases)?;
    if wrong.is_empty() { Ok(()) } else { Err(format!("{when}:\n{}", wrong.join("\n"))) }
}

/// That the same is parked in every generation: the last event of each case that fails, and nothing else.
fn parked(world: &World, cases: &[&Case]) -> Result<(), String> {
    let sql = "SELECT g.projection, g.number, count(*)::int AS n FROM projector.dead_letters d
        JOIN projector.generations g ON g.id = d.generation_id AND g.state = 'live' GROUP BY 1, 2";
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for row in world.try_query(sql).map_err(|error| error.to_string())? {
        let row: serde_json::Value = serde_json::from_str(&row).unwrap();
        found.insert(row["projection"].as_str().unwrap().into(), row["n"].as_u64().unwrap());
    }
    let failing = cases.iter().filter(|case| case.scenario.fails).map(|case| (case.projection.clone(), 1)).collect();
    if found == failing { Ok(()) } else { Err(format!("parked are {found:?}, expected {failing:?}")) }
}

/// A world in which the first so many events of each case are folded.
fn folded(cases: &[&Case], first: impl Fn(&Case) -> usize) -> Result<(World, Daemon), String> {
    let world = World::new("rebuilt");
    cases::write(&world, cases);
    world.apply();
    cases.iter().for_each(|case| case.send(&world, 0..first(case)));
    world.flush();
    let daemon = start(&world, "", "");
    until_applied(&world, cases, first)?;
    Ok((world, daemon))
}

fn all_of(case: &Case) -> usize {
    case.scenario.events.len()
}

fn half_of(case: &Case) -> usize {
    all_of(case) / 2
}

/// Rebuilt while the second half of the events arrives, then from nothing, then taken back, then forward again.
fn rebuilt(cases: &[&Case], sabotage: &str) -> Result<(), String> {
    let (world, mut daemon) = folded(cases, half_of)?;
    if !sabotage.is_empty() {
        daemon.kill();
        daemon = start(&world, "", sabotage);
    }
    say(&world, cases, "replay", ONE_BY_ONE, |case| case.send(&world, half_of(case)..all_of(case)))?;
    world.flush();
    until_shown(&world, cases, 2)?;
    until_applied(&world, cases, all_of)?;
    golden(&world, cases, "rebuilt while events arrived")?;
    let companions = cases::companions(&world, cases);
    // From now on there is nothing to wait for: who is shown has passed the one that was.
    say(&world, cases, "replay", &["--detach"], |_| {})?;
    until_shown(&world, cases, 3)?;
    golden(&world, cases, "rebuilt from nothing")?;
    parked(&world, cases)?;
    for (number, when) in [(2, "taken back"), (3, "forward again")] {
        say(&world, cases, "rollback", &[&number.to_string()], |_| {})?;
        until_shown(&world, cases, number)?;
        golden(&world, cases, when)?;
        assert_eq!(cases::companions(&world, cases), companions, "{when}");
    }
    if !daemon.is_running() {
        return Err(format!("the daemon has ended: {}", daemon.log()));
    }
    Ok(())
}

/// Rebuilt by a process that dies at every commit, now just before it and now just after it, until all are shown.
fn killed(cases: &[&Case], sabotage: &str) -> Result<usize, String> {
    /// Of those that die before, the first commit goes through: else nothing would ever be done.
    const FAILPOINTS: [&str; 2] = ["before-commit:2", "after-commit:1"];
    let (world, daemon) = folded(cases, all_of)?;
    daemon.stop();
    say(&world, cases, "replay", ONE_BY_ONE, |_| {})?;
    let mut kills = 0;
    loop {
        let mut daemon = start(&world, FAILPOINTS[kills % 2], sabotage);
        while daemon.is_running() && !not_live(&world, cases, 2)?.is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        if not_live(&world, cases, 2)?.is_empty() {
            break;
        }
        let status = daemon.ended();
        if status.signal() != Some(9) {
            return Err(format!("the process was to be killed, and ended with {status}: {}", daemon.log()));
        }
        kills += 1;
    }
    until_shown(&world, cases, 2)?;
    golden(&world, cases, &format!("after {kills} kills"))?;
    parked(&world, cases)?;
    Ok(kills)
}

/// One case of each system, by a seed; all of them, if `PROJECTOR_TEST_ALL_CASES` is set.
fn chosen(all: &[Case], seed: u64) -> Vec<&Case> {
    if std::env::var_os("PROJECTOR_TEST_ALL_CASES").is_some() {
        return all.iter().collect();
    }
    let mut dice = Dice(seed);
    let mut systems: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    all.iter().for_each(|case| systems.entry(&case.system).or_default().push(case));
    systems.values().map(|cases| cases[dice.roll(cases.len() as u64) as usize]).collect()
}

#[test]
fn every_case_is_rebuilt_and_taken_back() {
    let all = cases::all();
    assert_eq!(all.len(), 121, "cases have come or gone: tell this test");
    for cases in all.iter().collect::<Vec<_>>().chunks(TOGETHER) {
        rebuilt(cases, "").unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn cases_are_rebuilt_through_kills() {
    let all = cases::all();
    for cases in chosen(&all, 7).chunks(TOGETHER) {
        let kills = killed(cases, "").unwrap_or_else(|error| panic!("{error}"));
        println!("{} cases, {kills} kills", cases.len());
        assert!(kills >= 2 * cases.len(), "{kills} kills are too few to mean anything");
    }
}

/// The scenarios find it out when a step is left out while generations are built.
#[test]
fn these_tests_can_fail() {
    let all = cases::all();
    let of = |system: &str| all.iter().filter(|case| case.system == system).collect::<Vec<_>>();
    for (system, sabotage) in [("document_index", "versions"), ("company_statistics", "old-parent")] {
        let found = rebuilt(&of(system), sabotage);
        assert!(found.as_ref().is_err_and(|error| error.starts_with("rebuilt while")), "{sabotage}: {found:?}");
    }
    let found = killed(&of("sales_by_hour"), "checkpoint-apart");
    assert!(found.as_ref().is_err_and(|error| error.starts_with("after")), "{found:?}");
}
