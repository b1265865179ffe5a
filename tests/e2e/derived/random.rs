//! Random histories, in random batches of two lanes, with the propagator at any time between.

use projector::store::propagate::propagate;
use projector::store::write::Way;

use super::{Stage, network};
use crate::world::Dice;

/// Plays a history one transaction after another.
async fn play(stage: &mut Stage, seed: u64) -> Vec<String> {
    stage.reset().await;
    let mut dice = Dice(seed);
    let mut lanes = [stage.batch(), stage.batch()];
    for _ in 0..20 + dice.roll(60) {
        let sent = network::event(&mut dice, 0);
        // A source's events stay in one lane.
        stage.fold(&mut lanes[sent.source % 2], &sent);
        for lane in &mut lanes {
            if dice.roll(6) == 0 {
                let batch = std::mem::replace(lane, projector::batch::Batch::new(&stage.plan));
                stage.commit(batch, if dice.roll(3) == 0 { Way::Locked } else { Way::Best }).await;
            }
        }
        if dice.roll(5) == 0 {
            propagate(&stage.pool, &stage.plan, &stage.generation).await.unwrap();
        }
    }
    for batch in lanes {
        stage.commit(batch, Way::Best).await;
    }
    stage.propagate_all().await;
    stage.differences().await
}

#[test]
fn rows_follow_as_in_the_naive_model() {
    let mut stage = Stage::new("derived", network::YAML);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for seed in 1..=120 {
            let differences = play(&mut stage, seed).await;
            assert!(differences.is_empty(), "seed {seed}:\n{}", differences.join("\n"));
        }
    });
}
