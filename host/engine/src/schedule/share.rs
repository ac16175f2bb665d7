//! Dividing a step's tokens over the prompts that wait for some.

/// Divides `budget` tokens over prompts that have `left` tokens left, and returns each prompt's share. All get the same, prompts
/// that need less leave the rest to the others, and a remainder goes to the prompts from `first` on. So short prompts are done
/// quickly however long the others are.
pub(super) fn share(budget: usize, left: &[usize], first: usize) -> Vec<usize> {
    let mut shares = vec![0; left.len()];
    let mut budget = budget.min(left.iter().sum());
    while budget > 0 {
        let open: Vec<usize> = (0..left.len())
            .map(|index| (index + first) % left.len())
            .filter(|index| shares[*index] < left[*index])
            .collect();
        let equal = (budget / open.len()).max(1);
        for index in open {
            let more = equal.min(left[index] - shares[index]).min(budget);
            shares[index] += more;
            budget -= more;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_short_leave_their_rest_to_the_long() {
        assert_eq!(share(12, &[100, 2, 100], 0), [5, 2, 5]);
        assert_eq!(share(2, &[9, 9, 9], 1), [0, 1, 1]);
        assert_eq!(share(2, &[9, 9, 9], 2), [1, 0, 1]);
        assert_eq!(share(100, &[1, 2, 3], 0), [1, 2, 3]);
        assert_eq!(share(5, &[], 0), [0; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_is_used_and_nobody_has_more_than_another_could_have_used(
            budget in 0_usize..600, left in prop::collection::vec(0_usize..200, 0..20), first in 0_usize..20,
        ) {
            let shares = share(budget, &left, first % left.len().max(1));
            prop_assert_eq!(shares.iter().sum::<usize>(), budget.min(left.iter().sum()));
            for (share, left) in shares.iter().zip(&left) {
                prop_assert!(share <= left);
                if share < left {
                    prop_assert!(shares.iter().all(|other| *other <= share + 1));
                }
            }
        }
    }
}
