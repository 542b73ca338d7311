//! Values of one kind, and which of them stand for all.

/// At least one value, from the least to the greatest.
#[derive(Clone, Debug)]
pub(crate) struct Sorted(Vec<f64>);

impl Sorted {
    pub(crate) fn of(mut values: Vec<f64>) -> Sorted {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Sorted(values)
    }

    /// Half of the values are no greater.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    pub(crate) fn greatest(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}
