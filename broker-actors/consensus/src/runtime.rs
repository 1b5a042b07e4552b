//! The runtime that groups run on: tokio's on the current thread, whose chances a simulation may seed.
//!
//! Chance decides how long a member waits before it stands for election, and nothing else. In a process it
//! comes from the operating system; in a simulation it follows from a seed, so that the same seed gives the
//! same run: [`seed_chances`].

use std::cell::RefCell;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use futures_util::FutureExt as _;
use grus_log::Seeded;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;

/// Makes a source of chances of a seed.
type Seeds = DeterministicRng<TokioRuntime>;

thread_local! {
    /// Where the seeds of this thread come from; none: from the operating system.
    static CHANCES: RefCell<Option<Seeded>> = const { RefCell::new(None) };
}

/// Has all chances that groups take on this thread follow from a seed. For simulations.
#[doc(hidden)]
pub fn seed_chances(seed: u64) {
    CHANCES.set(Some(Seeded::new(seed)));
}

/// tokio's runtime on the current thread; see the module documentation.
#[derive(Debug)]
pub struct GroupRuntime(TokioRuntime);

impl AsyncRuntime for GroupRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeds as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        let seeded = CHANCES.with_borrow_mut(|chances| chances.as_mut().map(Seeded::draw));
        // A hasher's keys are the operating system's chance.
        let seed = seeded.unwrap_or_else(|| RandomState::new().hash_one(0_u8));
        let source = Seeds::scope(seed, async { Seeds::thread_rng() });
        source.now_or_never().expect("it waits for nothing")
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all_chances_and_without_one_they_differ() {
        let sources = || (0..20).map(|_| GroupRuntime::thread_rng()).collect::<Vec<_>>();
        assert_ne!(sources(), sources());
        seed_chances(7);
        let first = sources();
        assert!(first.windows(2).all(|two| two[0] != two[1]), "each is another one");
        seed_chances(8);
        assert_ne!(sources(), first);
        seed_chances(7);
        assert_eq!(sources(), first);
    }
}
