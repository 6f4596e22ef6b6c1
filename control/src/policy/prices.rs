//! What series, samples and bytes cost.
//!
//! Enters: a price model of the policy, and a number of series. Leaves: samples, bytes and money a month. The presets are models as price lists have
//! them, with round numbers of the usual size; who wants to know what is saved writes the numbers of the own contract.

use super::PolicyError;
use phoenix_plan::DurationMs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Hours of a month, as price lists count: 365 days of 24 hours in twelve parts.
const MONTH_S: f64 = 730.0 * 3_600.0;
/// Prices beyond this are no prices.
const PRICE_MAX: f64 = 1e6;

/// By what a backend charges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// Only what the other fields say.
    #[default]
    Own,
    /// By active series: 8 a month for a thousand.
    ActiveSeries,
    /// By samples: 0.10 for a million.
    Samples,
    /// By bytes: 0.50 for a gigabyte.
    Bytes,
}

/// Prices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// Where to begin: fields that are given win.
    pub model: Model,
    /// The currency's name, for reading.
    pub currency: String,
    /// A thousand active series, a month.
    pub per_thousand_series: Option<f64>,
    /// A million samples.
    pub per_million_samples: Option<f64>,
    /// A gigabyte that was taken in.
    pub per_gb: Option<f64>,
    /// Bytes of a sample, as they are charged.
    pub bytes_per_sample: f64,
    /// How often a series brings a sample.
    pub sample_interval: DurationMs,
}

/// What a number of series comes to, in a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Priced {
    /// Series. Below zero: more than before.
    pub series: f64,
    /// Samples.
    pub samples: f64,
    /// Bytes.
    pub bytes: f64,
    /// Money, in the policy's currency.
    pub money: f64,
}

impl Default for Prices {
    fn default() -> Prices {
        Prices {
            model: Model::Own,
            currency: "USD".to_owned(),
            per_thousand_series: None,
            per_million_samples: None,
            per_gb: None,
            bytes_per_sample: 2.0,
            sample_interval: DurationMs::from_secs(60),
        }
    }
}

impl Prices {
    /// Prices of a thousand series, a million samples and a gigabyte.
    pub fn all(&self) -> [f64; 3] {
        let preset = match self.model {
            Model::Own => [0.0, 0.0, 0.0],
            Model::ActiveSeries => [8.0, 0.0, 0.0],
            Model::Samples => [0.0, 0.10, 0.0],
            Model::Bytes => [0.0, 0.0, 0.50],
        };
        let own = [self.per_thousand_series, self.per_million_samples, self.per_gb];
        [0, 1, 2].map(|n| own[n].unwrap_or(preset[n]))
    }

    /// What so many series come to in a month.
    pub fn of(&self, series: f64) -> Priced {
        let samples = series * MONTH_S * 1e3 / self.sample_interval.0.max(1) as f64;
        let bytes = samples * self.bytes_per_sample;
        let [per_thousand_series, per_million_samples, per_gb] = self.all();
        let money =
            series / 1e3 * per_thousand_series + samples / 1e6 * per_million_samples + bytes / 1e9 * per_gb;
        Priced { series, samples, bytes, money }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let fields = [
            ("per_thousand_series", self.per_thousand_series.unwrap_or(0.0)),
            ("per_million_samples", self.per_million_samples.unwrap_or(0.0)),
            ("per_gb", self.per_gb.unwrap_or(0.0)),
            ("bytes_per_sample", self.bytes_per_sample),
        ];
        for (field, value) in fields {
            if !(0.0..=PRICE_MAX).contains(&value) {
                return Err(PolicyError::new(format!("prices.{field}"), value, format!("0 to {PRICE_MAX}")));
            }
        }
        if !(1..=32).contains(&self.currency.len()) {
            return Err(PolicyError::new("prices.currency", format!("{:?}", self.currency), "1 to 32 bytes"));
        }
        if !(1_000..=86_400_000).contains(&self.sample_interval.0) {
            return Err(PolicyError::new("prices.sample_interval", self.sample_interval, "1s to 24h"));
        }
        Ok(())
    }
}
