//! The power goes at one step of the disk after the other while a story is told, and once more soon
//! after the next start; then what was acknowledged is looked for.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use grus_mailbox::Answer;

use crate::seeds::{number, replayed};
use crate::world::{World, power_off, simulate};

/// What happens on one member until it rests, and what must be so whatever happened.
pub(crate) trait Story: Default {
    /// What is under way; the greatest: all is told.
    type Doing: Copy + Ord + Debug;
    /// All is told.
    const REST: Self::Doing;
    /// Of the world's dice.
    const SEED: u64;
    /// The test that tells it.
    const TEST: &'static str;

    /// What is under way, once it was begun.
    fn doing(&self) -> Option<Self::Doing>;

    /// All of it. Never comes back once the power is off.
    async fn tell(&mut self, world: &mut World);

    /// Looks at what is there after the cut at that step; 0: after none.
    async fn check(&self, world: &World, cut: u64);
}

/// The answer. None comes once the power is off: it did not leave before.
pub(crate) async fn answered<T>(world: &World, answer: Answer<T>) -> T {
    let answer = answer.await;
    if world.members[&1].disk.is_off() {
        std::future::pending::<()>().await;
    }
    match answer {
        Ok(answer) => answer,
        Err(_dropped) => std::future::pending().await,
    }
}

/// Starts the member; only without power it does not.
pub(crate) async fn start(world: &mut World) {
    if let Err(error) = world.start(1).await {
        assert!(world.members[&1].disk.is_off(), "it does not start: {error}");
        std::future::pending::<()>().await;
    }
}

/// Tells the story with a cut at so many of its steps, or at all of them with `GRUS_EVERY_STEP=1`; at one
/// alone with `GRUS_CUT`. `wanted` must have been under way at one of them each.
pub(crate) fn cut_at_every_step<S: Story>(cuts: u64, wanted: &[S::Doing]) {
    if let Some(cut) = number("GRUS_CUT") {
        println!("cut {cut} while doing {:?}", told_with_cuts::<S>(cut));
        return;
    }
    let steps = replayed(S::TEST, "", steps_of::<S>);
    let stride = if std::env::var_os("GRUS_EVERY_STEP").is_some() { 1 } else { steps / cuts };
    let mut done: BTreeMap<S::Doing, u64> = BTreeMap::new();
    let mut cut = 1;
    while cut <= steps {
        let settings = format!("GRUS_CUT={cut}");
        let doing = replayed(S::TEST, &settings, || told_with_cuts::<S>(cut));
        *done.entry(doing).or_default() += 1;
        cut += stride.max(1);
    }
    println!("{steps} steps; cuts by what was under way: {done:?}");
    for doing in wanted {
        assert!(done.contains_key(doing), "no cut while doing {doing:?}: {done:?}");
    }
}

/// The story with a cut at a step, and a second one soon after the next start; what was under way at
/// the first.
fn told_with_cuts<S: Story>(cut: u64) -> S::Doing {
    simulate(async {
        let mut world = World::of(&[1], S::SEED);
        let mut story = S::default();
        let disk = world.members[&1].disk.clone();
        disk.cut_at_step(cut);
        tokio::select! {
            () = story.tell(&mut world) => {}
            () = power_off(&disk) => {}
        }
        let doing = story.doing().expect("it was begun");
        world.cut_power(1).await;
        if doing != S::REST {
            disk.cut_at_step(1 + cut * 7 % 60);
            // It may come through: then it is cut while it works on, or rests.
            let comes_through = async {
                start(&mut world).await;
                tokio::time::sleep(Duration::from_millis(cut % 700)).await;
            };
            tokio::select! {
                () = comes_through => {}
                () = power_off(&disk) => {}
            }
            world.cut_power(1).await;
            world.start(1).await.expect("it starts on what is left");
            story.check(&world, cut).await;
            world.cut_power(1).await;
        }
        doing
    })
}

/// How many steps the disk makes when the power stays on.
fn steps_of<S: Story>() -> u64 {
    simulate(async {
        let mut world = World::of(&[1], S::SEED);
        let mut story = S::default();
        story.tell(&mut world).await;
        let steps = world.members[&1].disk.steps();
        story.check(&world, 0).await;
        world.cut_power(1).await;
        steps
    })
}
