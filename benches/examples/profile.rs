//! One case of `bench engine`, natively and alone, for a profiler.
//!
//! In: `CASE BODIES [untimed]` (a case of `bench engine`). Out: nothing but nanoseconds of CPU time a point. How to use it with
//! `perf` or callgrind stands in `docs/benchmarks.md`.

use phoenix_benches::measure::timed;
use phoenix_benches::native::{Case, Native, Subject as _};
use phoenix_benches::traffic::{Order, POINTS, Traffic};

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_else(|| "fold70".to_owned());
    let bodies: usize = words.next().map_or(Ok(200), |text| text.parse())?;
    let Some(case) = Case::ALL.into_iter().find(|case| case.name() == name) else {
        anyhow::bail!("no case {name}; there are {}", Case::ALL.map(Case::name).join(", "));
    };
    let mut traffic = Traffic::new(50_000, Order::Repeating, 1);
    let mut native = Native::new(case, traffic.now())?;
    // All bodies first, so that a profile shows the engine alone.
    let made: Vec<_> = (0..bodies)
        .map(|_| {
            let (now, mut body) = (traffic.now(), Vec::new());
            traffic.body(now, &mut body);
            (now, body)
        })
        .collect();
    let mut take = || made.iter().try_for_each(|(now, body)| native.take(body, *now));
    if words.next().is_some_and(|word| word == "untimed") {
        // Under valgrind the clock of a thread cannot be read.
        return take();
    }
    let (taken, spent) = timed(take);
    taken?;
    println!("{name}: {:.1} ns/point", spent / (bodies * POINTS) as f64);
    Ok(())
}
