//! How far an answer has come in its grammar, by Earley's algorithm (1970), and what is missing at least.

use std::collections::{BTreeMap, HashSet};

use llguidance::earley::lexerspec::LexemeIdx;

use super::syntax::{Cost, NEVER, Symbol, SymbolId, Syntax, sum};

/// A row of more items than this belongs to a grammar that is left to the slower search.
const MAX_ITEMS: usize = 20_000;

/// A rule that has been followed up to a place in its body, from a row on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Item {
    rule: u32,
    place: u32,
    origin: u32,
}

/// What is missing after a symbol.
#[derive(Clone, Copy)]
struct After {
    cost: Cost,
    /// The item that waits for the symbol on the cheapest way.
    item: Option<Item>,
}

/// What may come at a place between lexemes.
#[derive(Clone)]
struct Row {
    /// The items that wait for a symbol, by that symbol.
    waiting: Vec<(SymbolId, Item)>,
    /// What is missing at least after each symbol that is waited for.
    after: BTreeMap<SymbolId, After>,
    /// Whether the answer may end here.
    whole: bool,
}

/// The rows so far.
#[derive(Default)]
pub(super) struct Chart {
    rows: Vec<Row>,
}

impl Chart {
    /// At the beginning of an answer. `None` where the grammar has too many alternatives.
    pub(super) fn new(syntax: &Syntax) -> Option<Self> {
        let mut chart = Self::default();
        let Symbol::Rules(rules) = &syntax.symbols[syntax.start as usize] else { return None };
        let items = rules.iter().map(|rule| Item { rule: *rule, place: 0, origin: 0 }).collect();
        let row = chart.close(syntax, items)?;
        chart.rows.push(row);
        Some(chart)
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Goes back to the first `n` rows.
    pub(super) fn truncate(&mut self, n: usize) {
        self.rows.truncate(n);
    }

    /// Whether the answer may end after the last lexeme.
    pub(super) fn is_whole(&self) -> bool {
        self.last().whole
    }

    fn last(&self) -> &Row {
        &self.rows[self.rows.len() - 1]
    }

    /// The lexemes that may come next, with the symbols that they are and what is missing at least after each.
    pub(super) fn next<'c>(
        &'c self,
        syntax: &'c Syntax,
    ) -> impl Iterator<Item = (LexemeIdx, SymbolId, Cost)> + 'c {
        self.last().after.iter().filter_map(|(symbol, after)| match &syntax.symbols[*symbol as usize] {
            Symbol::Lexeme(lexeme) => Some((*lexeme, *symbol, after.cost)),
            Symbol::Rules(_) => None,
        })
    }

    /// Goes on after a lexeme, which may be any of `lexemes`. Returns whether one of them may come.
    pub(super) fn scan(&mut self, syntax: &Syntax, lexemes: &[LexemeIdx]) -> bool {
        let is_scanned = |symbol: SymbolId| match &syntax.symbols[symbol as usize] {
            Symbol::Lexeme(lexeme) => lexemes.contains(lexeme),
            Symbol::Rules(_) => false,
        };
        let waiting = self.last().waiting.iter().filter(|(symbol, _)| is_scanned(*symbol));
        let items: Vec<Item> = waiting.map(|(_, item)| advanced(*item)).collect();
        match self.close(syntax, items) {
            Some(row) if !row.waiting.is_empty() || row.whole => {
                self.rows.push(row);
                true
            }
            _ => false,
        }
    }

    /// Goes on after what may stand between any two lexemes.
    pub(super) fn skip(&mut self) {
        self.rows.push(self.last().clone());
    }

    /// A row from its first items: predicts and completes until nothing is new.
    fn close(&self, syntax: &Syntax, mut items: Vec<Item>) -> Option<Row> {
        let here = self.rows.len() as u32;
        let mut seen: HashSet<Item> = items.iter().copied().collect();
        let (mut index, mut whole) = (0, here == 0 && syntax.nullable[syntax.start as usize]);
        let mut waiting = Vec::new();
        while let Some(&item) = items.get(index) {
            index += 1;
            let rule = &syntax.rules[item.rule as usize];
            let mut add = |item| {
                if seen.insert(item) {
                    items.push(item);
                }
            };
            match rule.body.get(item.place as usize) {
                Some(&symbol) => {
                    waiting.push((symbol, item));
                    if let Symbol::Rules(rules) = &syntax.symbols[symbol as usize] {
                        rules.iter().for_each(|rule| add(Item { rule: *rule, place: 0, origin: here }));
                    }
                    if syntax.nullable[symbol as usize] {
                        add(advanced(item));
                    }
                }
                // What is empty was passed over where it was predicted.
                None if item.origin == here => {}
                None => {
                    whole |= item.origin == 0 && rule.symbol == syntax.start;
                    self.rows[item.origin as usize]
                        .waiting_for(rule.symbol)
                        .for_each(|item| add(advanced(item)));
                }
            }
            if items.len() > MAX_ITEMS {
                return None;
            }
        }
        let after = self.weigh(syntax, here, &waiting);
        waiting.sort_unstable_by_key(|(symbol, _)| *symbol);
        Some(Row { waiting, after, whole })
    }

    /// What is missing at least after each symbol that a new row waits for.
    fn weigh(&self, syntax: &Syntax, here: u32, waiting: &[(SymbolId, Item)]) -> BTreeMap<SymbolId, After> {
        let never = After { cost: NEVER, item: None };
        let mut after: BTreeMap<SymbolId, After> =
            waiting.iter().map(|(symbol, _)| (*symbol, never)).collect();
        // Items of this row wait for each other, so costs may fall more than once; most stand after the first round.
        let mut falls = true;
        while falls {
            falls = false;
            for (symbol, item) in waiting {
                let whole = syntax.rules[item.rule as usize].symbol;
                let mut beyond = if item.origin == here {
                    after.get(&whole).map_or(NEVER, |after| after.cost)
                } else {
                    self.rows[item.origin as usize].after.get(&whole).map_or(NEVER, |after| after.cost)
                };
                if item.origin == 0 && whole == syntax.start {
                    beyond = 0;
                }
                let cost = sum(syntax.rest(item.rule, item.place as usize + 1), beyond);
                let known = after.get_mut(symbol).filter(|known| cost < known.cost);
                if let Some(known) = known {
                    *known = After { cost, item: Some(*item) };
                    falls = true;
                }
            }
        }
        after
    }

    /// The lexemes of the cheapest way from after a symbol that the last row waits for to the answer's end, each given to `add`,
    /// which may end it. Returns whether the end was reached.
    pub(super) fn spell_after(
        &self,
        syntax: &Syntax,
        symbol: SymbolId,
        add: &mut dyn FnMut(LexemeIdx) -> bool,
    ) -> bool {
        let (mut row, mut symbol) = (self.last(), symbol);
        // Costs fall along the way or its rows do, and else it's a chain of the row's own items.
        for _ in 0..MAX_ITEMS {
            let Some(item) = row.after.get(&symbol).and_then(|after| after.item) else { return false };
            let rule = &syntax.rules[item.rule as usize];
            if !rule.body[item.place as usize + 1..].iter().all(|part| syntax.spell(*part, add)) {
                return false;
            }
            if item.origin == 0 && rule.symbol == syntax.start {
                return true;
            }
            // A row's own items have its number; those of a row that was passed on by `skip` have an earlier one.
            (row, symbol) = (&self.rows[item.origin as usize], rule.symbol);
        }
        false
    }
}

impl Row {
    fn waiting_for(&self, symbol: SymbolId) -> impl Iterator<Item = Item> {
        let from = self.waiting.partition_point(|(other, _)| *other < symbol);
        self.waiting[from..].iter().take_while(move |(other, _)| *other == symbol).map(|(_, item)| *item)
    }
}

fn advanced(item: Item) -> Item {
    Item { place: item.place + 1, ..item }
}
