use std::collections::BTreeMap;
use std::sync::Arc;

use herald_api::AlignedBytes;

use super::evict::Store;
use super::key::PageKey;
use super::row::{PageRow, States};
use super::tree::{Found, Gone, OnDisk, Tree};
use crate::kv_cache::Ledger;

/// Tokens of a page.
const PAGE: usize = 2;

fn root() -> PageKey {
    PageKey::of_facts(&BTreeMap::new())
}

/// Puts pages of `bytes` each into a tree; returns their keys.
fn keep(tree: &mut Tree, ids: &[u32], bytes: usize) -> Vec<PageKey> {
    let mut here = root();
    let path: Vec<PageKey> = ids
        .chunks(PAGE)
        .map(|tokens| {
            here = tree.child(here, tokens);
            if tree.nodes[&here].page.ram.is_none() {
                tree.set_page(here, PageRow::default());
                tree.nodes.get_mut(&here).unwrap().page.bytes = bytes;
                tree.bytes += bytes;
            }
            here
        })
        .collect();
    tree.touch(&path);
    path
}

fn states(bytes: usize) -> Arc<States> {
    Arc::new(States::new(vec![AlignedBytes::zeroed(bytes).unwrap()], &Arc::new(Ledger::default())))
}

fn found(tree: &Tree, ids: &[u32]) -> usize {
    tree.find(root(), ids, PAGE, false).tokens
}

#[test]
fn finds_the_longest_beginning_to_the_token() {
    let mut tree = Tree::default();
    let path = keep(&mut tree, &[1, 2, 3, 4, 5], 10);
    assert_eq!(tree.bytes, 30);
    let all = Found { path: path.clone(), tokens: 5, known: 4 };
    assert_eq!(tree.find(root(), &[1, 2, 3, 4, 5, 6], PAGE, false), all);
    let part = Found { path: path[..2].to_vec(), tokens: 3, known: 2 };
    assert_eq!(tree.find(root(), &[1, 2, 3, 9], PAGE, false), part);
    assert_eq!(found(&tree, &[3, 4]), 0, "the same tokens at another place");
    assert_eq!(found(&tree, &[1]), 1);
    assert_eq!(tree.find(root().of_namespace("other"), &[1, 2], PAGE, false), Found::default());
}

#[test]
fn with_states_it_goes_on_from_the_last_that_fits() {
    let mut tree = Tree::default();
    let path = keep(&mut tree, &[1, 2, 3, 4, 5], 10);
    let find = |tree: &Tree, ids: &[u32]| tree.find(root(), ids, PAGE, true);
    assert_eq!(find(&tree, &[1, 2, 3, 4, 5, 6]), Found { known: 4, ..Found::default() });
    tree.set_state(path[0], states(64));
    tree.set_state(path[2], states(64));
    let all = Found { path: path.clone(), tokens: 5, known: 4 };
    assert_eq!(find(&tree, &[1, 2, 3, 4, 5, 6]), all);
    let first = Found { path: path[..1].to_vec(), tokens: 2, known: 4 };
    assert_eq!(find(&tree, &[1, 2, 3, 4, 6, 7]), first);
}

#[test]
fn what_was_used_long_ago_goes_first_and_from_the_end() {
    let mut tree = Tree::default();
    keep(&mut tree, &[1, 2, 3, 4], 10);
    keep(&mut tree, &[5, 6, 7, 8], 10);
    let mut gone = Gone::default();
    tree.shrink(Store::Ram, 30, false, &mut gone);
    assert_eq!((tree.bytes, gone.rows.len(), gone.bytes), (30, 1, 10));
    assert_eq!((found(&tree, &[1, 2]), found(&tree, &[5, 6])), (2, 2), "ends go first");
    // The level has risen with what went.
    keep(&mut tree, &[9, 9], 10);
    keep(&mut tree, &[1, 2], 10);
    tree.shrink(Store::Ram, 20, false, &mut gone);
    assert_eq!(found(&tree, &[1, 2]), 2);
    assert_eq!(found(&tree, &[9, 9]), 2);
    assert_eq!(found(&tree, &[5, 6]), 0);
    tree.shrink(Store::Ram, 0, false, &mut gone);
    assert_eq!((tree.bytes, tree.nodes.len()), (0, 0), "nothing is left over");
}

#[test]
fn a_page_that_is_dear_for_its_bytes_stays() {
    let mut tree = Tree::default();
    keep(&mut tree, &[1, 2], 1000);
    keep(&mut tree, &[3, 4], 10);
    tree.shrink(Store::Ram, 1000, false, &mut Gone::default());
    assert_eq!((found(&tree, &[1, 2]), found(&tree, &[3, 4])), (0, 2));
}

#[test]
fn states_get_thinner_where_they_are_dense() {
    let mut tree = Tree::default();
    let ids: Vec<u32> = (0..32).collect();
    let path = keep(&mut tree, &ids, 0);
    for index in [1, 2, 3, 15] {
        tree.set_state(path[index], states(64));
    }
    let left = |tree: &Tree| -> Vec<usize> {
        (0..16)
            .filter(|index| tree.nodes.get(&path[*index]).is_some_and(|node| node.state.exists()))
            .collect()
    };
    tree.shrink(Store::Ram, 3 * 64, true, &mut Gone::default());
    assert_eq!(left(&tree).len(), 3);
    assert!(left(&tree).contains(&1) && left(&tree).contains(&15), "{:?}", left(&tree));
    tree.shrink(Store::Ram, 64, true, &mut Gone::default());
    assert_eq!(left(&tree), [15], "far from the states before them");
    tree.shrink(Store::Ram, 0, true, &mut Gone::default());
    assert_eq!((left(&tree).len(), tree.bytes), (0, 0));
}

#[test]
fn what_files_have_leaves_ram_first_and_stays_known() {
    let mut tree = Tree::default();
    let stored = keep(&mut tree, &[1, 2], 10);
    keep(&mut tree, &[3, 4], 10);
    tree.nodes.get_mut(&stored[0]).unwrap().page.disk = OnDisk::Stored(30);
    tree.file_bytes += 30;
    let mut gone = Gone::default();
    tree.shrink(Store::Ram, 10, false, &mut gone);
    assert!(tree.nodes[&stored[0]].page.ram.is_none());
    assert_eq!((found(&tree, &[1, 2]), found(&tree, &[3, 4])), (2, 2));
    tree.shrink(Store::Disk, 0, false, &mut gone);
    assert_eq!(found(&tree, &[1, 2]), 0);
    assert_eq!((tree.file_bytes, gone.files), (0, vec![(stored[0], false)]));
}

#[test]
fn what_is_found_through_a_page_goes_with_it() {
    let mut tree = Tree::default();
    let path = keep(&mut tree, &[1, 2, 3, 4, 5, 6], 10);
    let other = keep(&mut tree, &[1, 2, 7, 8], 10);
    tree.set_state(path[2], states(64));
    let mut gone = Gone::default();
    tree.remove(path[1], &mut gone);
    assert_eq!((gone.rows.len(), gone.states.len(), gone.bytes), (2, 1, 84));
    assert_eq!((tree.bytes, found(&tree, &[1, 2, 3, 4])), (20, 2));
    assert_eq!(found(&tree, &[1, 2, 7, 8]), 4);
    tree.remove(other[0], &mut gone);
    assert_eq!((tree.bytes, tree.nodes.len()), (0, 0));
}
