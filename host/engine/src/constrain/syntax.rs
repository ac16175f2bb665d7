//! The grammar behind a form, and the shortest text of each of its parts.
//!
//! What a part costs at least is computed for all parts at once, from the cheapest up (Knuth 1977, "A generalization of Dijkstra's
//! algorithm").

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use llguidance::earley::lexerspec::LexemeIdx;
use llguidance::earley::{CGrammar, CSymIdx};

/// A symbol of the grammar: its place among [`Syntax::symbols`].
pub(super) type SymbolId = u32;

/// What a text costs: about its tokens.
pub(super) type Cost = u32;

/// The cost of what can't be.
pub(super) const NEVER: Cost = Cost::MAX;

pub(super) fn sum(left: Cost, right: Cost) -> Cost {
    left.saturating_add(right)
}

/// A symbol: a lexeme, or rules of which any may stand for it.
pub(super) enum Symbol {
    Lexeme(LexemeIdx),
    /// Places among the rules.
    Rules(Vec<u32>),
}

/// A rule: the symbol that it may stand for, and what it consists of.
pub(super) struct Rule {
    pub(super) symbol: SymbolId,
    pub(super) body: Vec<SymbolId>,
    /// The cost from each place in the body to its end.
    rest: Vec<Cost>,
}

/// A grammar whose terminals are the lexer's lexemes.
pub(super) struct Syntax {
    pub(super) symbols: Vec<Symbol>,
    pub(super) rules: Vec<Rule>,
    pub(super) start: SymbolId,
    pub(super) nullable: Vec<bool>,
    costs: Vec<Cost>,
    /// The cheapest rule of each symbol that has rules.
    cheapest: Vec<u32>,
}

impl Syntax {
    /// Takes a grammar over. `None` for one with parts that this doesn't know: parameters, or grammars within grammars.
    pub(super) fn new(grammar: &CGrammar) -> Option<Self> {
        if grammar.parametric() {
            return None;
        }
        let mut ids: HashMap<CSymIdx, SymbolId> = HashMap::from([(grammar.start(), 0)]);
        let mut found = vec![grammar.start()];
        let (mut symbols, mut rules, mut nullable) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(&symbol) = found.get(symbols.len()) {
            let data = grammar.sym_data(symbol);
            if data.gen_grammar.is_some() || data.props.max_tokens != usize::MAX {
                return None;
            }
            nullable.push(data.is_nullable);
            if let Some(lexeme) = data.lexeme {
                symbols.push(Symbol::Lexeme(lexeme));
                continue;
            }
            let id = symbols.len() as SymbolId;
            let mut own = Vec::with_capacity(data.rules.len());
            for rule in &data.rules {
                let mut body = Vec::new();
                for part in grammar.rule_rhs(*rule).0 {
                    let part_id = *ids.entry(*part).or_insert_with(|| {
                        found.push(*part);
                        found.len() as SymbolId - 1
                    });
                    body.push(part_id);
                }
                own.push(rules.len() as u32);
                rules.push(Rule { symbol: id, body, rest: Vec::new() });
            }
            symbols.push(Symbol::Rules(own));
        }
        let n = symbols.len();
        Some(Self { symbols, rules, start: 0, nullable, costs: vec![NEVER; n], cheapest: vec![0; n] })
    }

    /// The lexemes that occur.
    pub(super) fn lexemes(&self) -> impl Iterator<Item = LexemeIdx> {
        self.symbols.iter().filter_map(|symbol| match symbol {
            Symbol::Lexeme(lexeme) => Some(*lexeme),
            Symbol::Rules(_) => None,
        })
    }

    /// Computes all costs from those of the lexemes.
    pub(super) fn weigh(&mut self, cost: impl Fn(LexemeIdx) -> Cost) {
        let mut users: Vec<Vec<u32>> = vec![Vec::new(); self.symbols.len()];
        let mut open: Vec<(usize, Cost)> = self.rules.iter().map(|rule| (rule.body.len(), 0)).collect();
        for (index, rule) in self.rules.iter().enumerate() {
            rule.body.iter().for_each(|part| users[*part as usize].push(index as u32));
        }
        // (cost, symbol, rule), the cheapest first.
        let mut reached = BinaryHeap::new();
        for (id, symbol) in self.symbols.iter().enumerate() {
            // The compiler has taken out the rules of empty bodies, and marked their symbols.
            let own = match symbol {
                _ if self.nullable[id] => 0,
                Symbol::Lexeme(lexeme) => cost(*lexeme),
                Symbol::Rules(_) => continue,
            };
            reached.push(Reverse((own, id as SymbolId, 0)));
        }
        let mut done = vec![false; self.symbols.len()];
        while let Some(Reverse((cost, symbol, rule))) = reached.pop() {
            let id = symbol as usize;
            if cost == NEVER || std::mem::replace(&mut done[id], true) {
                continue;
            }
            (self.costs[id], self.cheapest[id]) = (cost, rule);
            for user in &users[id] {
                let (missing, total) = &mut open[*user as usize];
                *missing -= 1;
                *total = sum(*total, cost);
                if *missing == 0 {
                    reached.push(Reverse((*total, self.rules[*user as usize].symbol, *user)));
                }
            }
        }
        for rule in &mut self.rules {
            rule.rest = vec![0; rule.body.len() + 1];
            for (place, part) in rule.body.iter().enumerate().rev() {
                rule.rest[place] = sum(rule.rest[place + 1], self.costs[*part as usize]);
            }
        }
    }

    /// What a symbol costs at least.
    pub(super) fn cost(&self, symbol: SymbolId) -> Cost {
        self.costs[symbol as usize]
    }

    /// What a rule costs from this place on.
    pub(super) fn rest(&self, rule: u32, place: usize) -> Cost {
        self.rules[rule as usize].rest[place]
    }

    /// The cheapest lexemes that a symbol can stand for, in order, each given to `add`, which may end it.
    pub(super) fn spell(&self, symbol: SymbolId, add: &mut dyn FnMut(LexemeIdx) -> bool) -> bool {
        let mut open = vec![symbol];
        while let Some(symbol) = open.pop() {
            match &self.symbols[symbol as usize] {
                _ if self.nullable[symbol as usize] => {}
                Symbol::Lexeme(lexeme) => {
                    if !add(*lexeme) {
                        return false;
                    }
                }
                Symbol::Rules(_) => {
                    let rule = self.cheapest[symbol as usize];
                    open.extend(self.rules[rule as usize].body.iter().rev());
                }
            }
        }
        true
    }
}
