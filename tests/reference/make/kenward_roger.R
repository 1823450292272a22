# kenward_roger.json: pbkrtest's F test of `w` in small split plots from which rows were taken.
# Run in this directory: Rscript kenward_roger.R

suppressPackageStartupMessages({library(lme4); library(pbkrtest)})
source("common.R")

split_plot <- function(b, w, s, drop, seed) {
  set.seed(seed)
  d <- expand.grid(s = factor(1:s), w = factor(1:w), b = factor(1:b))
  d$y <- round(2 * rnorm(b)[d$b] + 1.5 * rnorm(b * w)[as.integer(interaction(d$b, d$w))] + 0.4 * rnorm(nrow(d)), 3)
  if (length(drop)) d[-drop, ] else d
}

one <- function(b, w, s, drop = integer(0), seed = 1) {
  d <- split_plot(b, w, s, drop, seed)
  large <- best_lmer(y ~ w + s + (1 | b / w), d)
  small <- best_lmer(y ~ s + (1 | b / w), d)
  found <- suppressWarnings(KRmodcomp(large, small))$stats
  list(formula = "y ~ w + s + (1 | b/w)", term = "w", data = lapply(d, as.character) |> modifyList(list(y = d$y)),
       F = found$Fstat, ddf = found$ddf, p = found$p.value, scaling = found$F.scaling)
}

write_reference("kenward_roger.json", list(
  about = paste("F tests of w by", versions("lme4", "pbkrtest")),
  tests = list(
    one(2, 3, 2), one(2, 3, 4), one(2, 3, 2, 3), one(2, 3, 3, 3), one(3, 3, 2, 1:2), one(3, 3, 2, c(1, 2, 8)),
    one(2, 4, 2, 1:2), one(2, 4, 2, c(1, 2, 9, 10)), one(4, 3, 2, c(1, 5, 9)), one(4, 4, 2, c(1, 2, 11, 20)),
    one(3, 4, 3, c(2, 3, 17, 30)), one(5, 3, 3, c(1, 2, 3, 20, 41)))))
