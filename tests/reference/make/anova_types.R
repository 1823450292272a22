# anova_types.json: analyses of variance by lmerTest (types I to III), lme4's own anova(), and car's Anova().
# Run in this directory: Rscript anova_types.R

suppressPackageStartupMessages({library(lme4); library(car)})
source("common.R")

columns <- function(table) list(rows = I(rownames(table)), values = unname(as.matrix(table)))

linear <- function(name, formula, drop) {
  d <- read_data(name)
  rows <- which((seq_len(nrow(d)) - 1) %% drop[1] != drop[2])
  data <- d[rows, ]
  m <- best_lmer(formula, data)
  tested <- lmerTest::as_lmerModLmerTest(m)
  list(data = name, formula = deparse1(formula), every = drop[1], dropped = drop[2],
       lmerTest = setNames(lapply(1:3, function(type) columns(anova(tested, type = type))), 1:3),
       lme4 = columns(anova(m)), car = list(`2` = columns(Anova(m, type = 2)), `3` = columns(Anova(m, type = 3))),
       car_kenward_roger = list(`2` = columns(Anova(m, type = 2, test.statistic = "F"))))
}

generalised <- function(name, formula, family) {
  data <- read_data(name)
  m <- glmer(formula, data, family = family, control = glmerControl(
    optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5), tolPwrss = 1e-13))
  list(data = name, formula = deparse1(formula), family = family, lme4 = columns(anova(m)),
       car = list(`2` = columns(Anova(m, type = 2)), `3` = columns(Anova(m, type = 3))))
}

write_reference("anova_types.json", list(
  about = versions("lme4", "lmerTest", "car", "pbkrtest"),
  linear = list(
    linear("Orthodont", distance ~ age * Sex + (1 | Subject), c(7, 3)),
    linear("Oats", yield ~ nitro * Variety + (1 | Block), c(5, 2)),
    linear("Machines", score ~ Machine + (1 | Worker), c(4, 1))),
  generalised = list(
    generalised("cbpp", cbind(incidence, size - incidence) ~ period + (1 | herd), "binomial"),
    generalised("Contraception", use ~ age * urban + livch + (1 | district), "binomial"),
    generalised("grouseticks", TICKS ~ YEAR * cHEIGHT + (1 | LOCATION), "poisson"))))
