# Ordered categories with effects on thresholds or scale, and other structures: writes ordinal_parts.json beside this folder.
#     Rscript tests/reference/make/ordinal_parts.R
# clm and clmm2 of ordinal; sequential models as binomial ones of the steps that each response took (lme4); adjacent ones
# by a likelihood that is written out here, with the random intercept by 40 Gauss-Hermite points.
suppressPackageStartupMessages({library(jsonlite); library(ordinal); library(lme4); library(numDeriv)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
data(wine); data(soup)
clm_of <- function(...) {
  m <- clm(..., control = clm.control(gradTol = 1e-10)); s <- sqrt(diag(vcov(m)))
  list(log_likelihood = as.numeric(logLik(m)), coefficients = unname(coef(m)), names = names(coef(m)), std_errors = unname(s))
}
clmm2_of <- function(m) {
  list(log_likelihood = m$logLik, coefficients = unname(m$coefficients), names = names(m$coefficients), sd = unname(m$stDev))
}
out <- list(
  soup_scale = clm_of(SURENESS ~ PROD, scale = ~ PROD, data = soup, link = "probit"),
  wine_scale = clm_of(rating ~ contact, scale = ~ temp, data = wine),
  wine_nominal = clm_of(rating ~ temp, nominal = ~ contact, data = wine),
  wine_both = clm_of(rating ~ temp, nominal = ~ contact, scale = ~ temp, data = wine),
  wine_symmetric = clm_of(rating ~ temp, nominal = ~ contact, data = wine, threshold = "equidistant"),
  mixed_nominal = clmm2_of(clmm2(rating ~ temp, nominal = ~ contact, random = judge, data = wine, nAGQ = 10,
                                 control = clmm2.control(grtol = 1e-9))),
  mixed_scale = clmm2_of(clmm2(rating ~ contact, scale = ~ temp, random = judge, data = wine, nAGQ = 10,
                               control = clmm2.control(grtol = 1e-9)))
)
test <- nominal_test(clm(rating ~ temp + contact, data = wine))
out$nominal_test <- list(terms = rownames(test)[-1], chi2 = test$LRT[-1], df = test$Df[-1])
# Sequential: a row for each category that was reached, stopped there or not.
y <- as.integer(wine$rating); K <- 5
steps <- do.call(rbind, lapply(seq_along(y), function(i) {
  k <- seq_len(min(y[i], K - 1))
  data.frame(stopped = as.integer(k == y[i]), k = factor(k, levels = 1:4), temp = wine$temp[i], contact = wine$contact[i],
             judge = wine$judge[i])
}))
for (link in c("logit", "probit")) {
  m <- glmer(stopped ~ 0 + k + temp + contact + (1 | judge), steps, binomial(link), nAGQ = 25,
             control = glmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 2e-4, rhoend = 2e-9, maxfun = 1e5)))
  # The density of the judges' rows has its constant in lme4's deviance under nAGQ > 1 only up to one: evaluated here.
  x <- c(fixef(m), sqrt(unlist(VarCorr(m))))
  out[[paste0("sequential_", link)]] <- list(coefficients = unname(x), names = names(x))
}
gh <- function(n) {
  J <- matrix(0, n, n); i <- seq_len(n - 1); J[cbind(i, i + 1)] <- J[cbind(i + 1, i)] <- sqrt(i)
  e <- eigen(J, symmetric = TRUE); list(x = e$values, w = e$vectors[1, ]^2)
}
rule <- gh(40); X <- model.matrix(~ temp + contact, wine)[, -1]
adjacent <- function(par) {
  a <- par[1:4]; b <- par[5:6]; s <- par[7]
  total <- 0
  for (j in levels(wine$judge)) {
    rows <- wine$judge == j
    L <- sapply(rule$x, function(z) {
      eta <- X[rows, ] %*% b + s * z
      scores <- cbind(0, outer(drop(eta), 1:4) - matrix(cumsum(a), sum(rows), 4, byrow = TRUE))
      sum(scores[cbind(seq_len(sum(rows)), y[rows])] - log(rowSums(exp(scores))))
    })
    total <- total + log(sum(rule$w * exp(L)))
  }
  -total
}
x <- c(-1, 0, 1, 2, 1, 1, .7)
for (i in 1:3) x <- nlminb(x, adjacent, control = list(rel.tol = 1e-15, iter.max = 500, eval.max = 2000))$par
for (i in 1:2) x <- x - solve(hessian(adjacent, x), grad(adjacent, x))
out$adjacent <- list(log_likelihood = -adjacent(x), coefficients = x, std_errors = sqrt(diag(solve(hessian(adjacent, x)))))
sequential <- function(par) {
  a <- par[1:4]; b <- par[5:6]; s <- par[7]
  total <- 0
  for (j in levels(wine$judge)) {
    own <- steps[steps$judge == j, ]
    Xj <- model.matrix(~ temp + contact, own)[, -1]
    L <- sapply(rule$x, function(z) {
      t <- a[as.integer(own$k)] - Xj %*% b - s * z
      sum(ifelse(own$stopped == 1, plogis(t, log.p = TRUE), plogis(-t, log.p = TRUE)))
    })
    total <- total + log(sum(rule$w * exp(L)))
  }
  -total
}
x <- unlist(out$sequential_logit$coefficients); x[5:6] <- -x[5:6]
for (i in 1:3) x <- nlminb(x, sequential, control = list(rel.tol = 1e-15, iter.max = 500, eval.max = 2000))$par
for (i in 1:2) x <- x - solve(hessian(sequential, x), grad(sequential, x))
out$sequential_logit <- list(log_likelihood = -sequential(x), coefficients = unname(x),
                             std_errors = unname(sqrt(diag(solve(hessian(sequential, x))))))
out$sequential_probit$coefficients[5:6] <- -out$sequential_probit$coefficients[5:6]
write(toJSON(out, digits = 15, auto_unbox = TRUE, pretty = TRUE), file.path(here, "..", "ordinal_parts.json"))
