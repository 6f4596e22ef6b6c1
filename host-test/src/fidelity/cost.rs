//! (f) What the fold saves, and that it says what it is.

use super::Scene;
use super::clock::TAIL_NS;
use super::instrument::FOLDED;
use super::plan::{MARK, MARK_KEPT, WRITER};
use super::table::Table;
use crate::figure::{Figure, Unit};
use crate::prometheus::Prometheus;
use crate::prometheus::answer::Labels;
use anyhow::ensure;

/// How much of the series may be left.
const LEFT: f64 = 0.3;
/// Labels that the rules drop, as Prometheus spells them.
const DROPPED: [&str; 3] = ["k8s_pod_name", "instance", "user_agent"];

pub async fn figures(scene: &Scene, table: &mut Table) -> anyhow::Result<()> {
    table.title("(f) series");
    let names: Vec<&str> = FOLDED.iter().map(|metric| metric.stored).collect();
    let matcher = format!("{{__name__=~\"{}\"}}", names.join("|"));
    let folded = series(scene, &scene.roads.folded, &matcher).await?;
    let raw = series(scene, &scene.roads.raw, &matcher).await?;
    let arrival = series(scene, &scene.roads.arrival, &matcher).await?;
    ensure!(!folded.is_empty() && !raw.is_empty(), "no series");
    let share = |of: &[Labels]| of.len() as f64 / raw.len() as f64;
    let what = format!("{} series in place of {}", folded.len(), raw.len());
    let figure = Figure::new("f.series", what, Unit::Percent, share(&folded));
    table.add(figure.at_most(LEFT).beside(share(&arrival)));
    let marked = series(scene, &scene.roads.folded, "{phoenix_folded!=\"\"}").await?;
    ensure!(marked.len() > folded.len(), "{} series are marked, {} folded", marked.len(), folded.len());
    let wrong = folded.iter().filter(|labels| labels.get("phoenix_folded").is_none_or(|mark| mark != MARK));
    let wrong = wrong.chain(marked.iter().filter(|labels| !is_honest(labels))).count();
    let what = format!("of {} series: no mark, no writer, or a dropped label", marked.len());
    table.add(Figure::new("f.labels", what, Unit::Count, wrong as f64).at_most(0.0));
    Ok(())
}

/// Mark and writer, what is kept, and nothing of what the mark says is dropped.
fn is_honest(labels: &Labels) -> bool {
    let of = |name: &str| labels.get(name).map(String::as_str);
    // The mark of a histogram also says which bounds.
    let mark = of("phoenix_folded").and_then(|mark| mark.split(";bounds=").next());
    let dropped: &[&str] = match mark {
        Some(MARK) => &DROPPED,
        Some(MARK_KEPT) => &DROPPED[..2],
        _ => return false,
    };
    of("phoenix_writer") == Some(WRITER)
        && of("job") == Some("shop")
        && of("route").is_some()
        && dropped.iter().all(|name| of(name).is_none())
        && (dropped.len() == DROPPED.len() || of(DROPPED[2]).is_some())
}

async fn series(scene: &Scene, prometheus: &Prometheus, matcher: &str) -> anyhow::Result<Vec<Labels>> {
    let ms = |ns: u64| (ns / 1_000_000) as i64;
    prometheus
        .series(matcher, ms(scene.traffic.begin_ns()), ms(scene.traffic.active_until_ns() + TAIL_NS))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_says_what_it_is_or_counts_as_wrong() {
        let usual = [("phoenix_folded", MARK), ("phoenix_writer", WRITER), ("job", "shop"), ("route", "/")];
        let with = |more: &[(&str, &str)], without: &str| -> Labels {
            let all = usual.iter().chain(more).filter(|(name, _)| *name != without);
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert!(is_honest(&with(&[], "")));
        let kept = [("phoenix_folded", MARK_KEPT), ("user_agent", "curl")];
        assert!(is_honest(&with(&kept, "")));
        assert!(!is_honest(&with(&kept, "user_agent")), "the mark says that it is kept");
        for missing in ["phoenix_folded", "phoenix_writer", "job", "route"] {
            assert!(!is_honest(&with(&[], missing)), "{missing}");
        }
        for dropped in DROPPED {
            assert!(!is_honest(&with(&[(dropped, "x")], "")), "{dropped}");
        }
    }
}
